"""Seeds in one program: each comes to what it comes to alone, whatever happens."""

import dataclasses
import fcntl
import os
import pathlib
import shutil
import signal
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import killed_at_batch, tiny_experiment

import kd.train.loop
from kd import run, run_directory
from kd.compare.cells import cells, make
from kd.compare.command import _check
from kd.compare.table import Table
from kd.data import sources
from kd.data.pipeline import plan_epoch
from kd.data.tables import TableTask
from kd.divergences import KL, SinKD
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.experiment import Experiment, Network
from kd.models.mlp import MLP
from kd.objective import CrossEntropy, Loss
from kd.run import together
from kd.run.shared import Shared
from kd.run_directory import Busy
from kd.train import metrics_log
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW
from kd.train.signals import Interrupted

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
"""Relative, of losses, weights and logits after some dozen steps, together and alone.
Rounding alone parts them, and longer training parts them more."""


@dataclasses.dataclass(frozen=True)
class Unlucky(Loss):
    """Not finite from the moment on that some step has some example."""

    step: int
    example: int

    name = "unlucky"

    @property
    def needs_teacher(self):
        return False

    def per_example(self, params, student, teacher, batch):
        met = (batch["step"] == self.step) & (batch["index"] == self.example)
        return jnp.where(met, jnp.nan, 0) * student.logits[:, 0] ** 2


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Experiment:
    """Rows of a table, a small network with dropout, a teacher by a recipe."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    (folder / "points").mkdir()
    rows = ["x,y,label"]
    for x, y in random.normal(0, 1, (150, 2)):
        rows.append(f"{x},{y},{'high' if y > x else 'low'}")
    (folder / "points/points.csv").write_text("\n".join(rows) + "\n")
    recipe = Experiment(
        data=TableTask(
            name="points", file="points.csv", target=Classes(("low", "high")),
            directory=str(folder),
        ),
        student=MLP(widths=(8,), dropout=0.2),
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=1e-2, weight_decay=0.01),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )  # fmt: skip
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        objective=0.5 * CrossEntropy() + 0.5 * KL() + 0.1 * SinKD(),
    )


@pytest.fixture(scope="module")
def taught(points, tmp_path_factory) -> Callable:
    """Gives a place where the teacher is trained, and what is said there.

    What is compiled in one is so in all.
    """
    mesh, shared = data_mesh(jax.devices()[:2]), Shared()
    first = run.Workspace(
        tmp_path_factory.mktemp("taught"), "mini", mesh, print, shared
    )
    run.make(points.teachers[0].recipe, first)

    def place(folder, num_devices=2):
        said = []
        shutil.copytree(first.runs, folder / "runs")
        mesh = data_mesh(jax.devices()[:num_devices])
        return run.Workspace(folder / "runs", "mini", mesh, said.append, shared), said

    return place


@pytest.fixture
def here(taught, tmp_path):
    return taught(tmp_path)


def of_seeds(experiment, seeds=(0, 1, 2, 3)):
    return [dataclasses.replace(experiment, seed=seed) for seed in seeds]


def everything(directory: pathlib.Path):
    """What must be the same to the bit."""
    rows = metrics_log.read(directory / "metrics.jsonl")
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    with np.load(directory / "predictions.npz") as arrays:
        predictions = {name: arrays[name].tobytes() for name in arrays.files}
    return rows, predictions, (directory / "model/model.safetensors").read_bytes()


def assert_near(found: pathlib.Path, expected: pathlib.Path):
    """Whether two runs left the same, but for rounding."""
    assert {p.name for p in found.iterdir()} == {p.name for p in expected.iterdir()}
    assert {p.name for p in (found / "model").iterdir()} == {
        p.name for p in (expected / "model").iterdir()
    }
    ours, theirs = (metrics_log.read(d / "metrics.jsonl") for d in (found, expected))
    assert [(r["step"], r["split"]) for r in ours] == [
        (r["step"], r["split"]) for r in theirs
    ]
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"split", "examples_per_second"}:
            np.testing.assert_allclose(
                row[name], other[name], rtol=TOLERANCE, atol=TOLERANCE / 10,
                err_msg=f"{name} of step {row['step']}",
            )  # fmt: skip
    for file in ("model/model.safetensors", "predictions.npz"):
        read = np.load if file.endswith("npz") else safetensors.numpy.load_file
        with np.errstate(all="raise"):
            a, b = (read(d / file) for d in (found, expected))
        assert {*a} == {*b}
        for name in a:
            np.testing.assert_allclose(
                a[name], b[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
    configs = (run_directory.read_json(d / "config.json") for d in (found, expected))
    assert next(configs) == next(configs)
    summary, other = (
        run_directory.read_json(d / "summary.json") for d in (found, expected)
    )
    assert summary.keys() - {"together"} == other.keys()
    assert summary["student"].keys() == other["student"].keys()


@pytest.fixture(scope="module")
def whole(points, taught, tmp_path_factory):
    """Four seeds that trained together undisturbed, and what was said."""
    workspace, said = taught(tmp_path_factory.mktemp("whole"))
    run.make_together(of_seeds(points), workspace)
    return workspace, said


def directories(experiments, workspace):
    return [run.folder_of(e, workspace) for e in experiments]


def test_each_seed_comes_to_what_it_comes_to_alone(points, whole, here):
    workspace, said = whole
    assert "4 seeds in one program, on 2 devices" in said
    alone, _ = here
    members = of_seeds(points)
    found = directories(members, workspace)
    for member, directory in zip(members, found, strict=True):
        assert_near(directory, run.make(member, alone))
        summary = run_directory.read_json(directory / "summary.json")
        assert summary["together"] == [0, 1, 2, 3]
    first, second = (everything(d)[2] for d in found[:2])
    assert first != second
    assert not [*(workspace.runs / "networks/together").iterdir()]


def test_text_in_buckets_too(here, tmp_path):
    """Of other widths at the same step, with dropout."""
    workspace, _ = here
    alone = dataclasses.replace(workspace, runs=tmp_path / "alone")
    teacher = tiny_experiment(widths=(16, 32)).teachers[0]
    assert teacher.recipe
    recipe = dataclasses.replace(teacher.recipe, num_steps=12, batch_size=8)
    members = of_seeds(recipe, (0, 3))
    run.make_together(members, workspace)
    for member in members:
        assert_near(run.folder_of(member, workspace), run.make(member, alone))


def test_killed_and_gone_on_with(points, whole, here, monkeypatch):
    workspace, said = here
    members = of_seeds(points)
    with killed_at_batch(10):
        run.make_together(members, workspace)
    for directory in directories(members, workspace):
        assert not run_directory.is_over(directory)
        # Free for others, but this is where it goes on.
        assert not run_directory.has_checkpoint(directory)

    # And once more when two of four have their results.
    writing, written = run.workflow.results.write, []

    def until_killed(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        return writing(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run.workflow.results, "write", until_killed)
        with pytest.raises(KeyboardInterrupt):
            run.make_together(members, workspace)
    assert "resuming after step 6 of 20" in said
    unfinished = [e for e in members if not run_directory.is_over(
        run.folder_of(e, workspace))]  # fmt: skip
    assert [e.seed for e in unfinished] == [2, 3]
    run.make_together(unfinished, workspace)
    assert "resuming after step 20 of 20" in said
    for ours, theirs in zip(
        directories(members, workspace), directories(members, whole[0]), strict=True
    ):
        assert everything(ours) == everything(theirs)
    assert not [*(workspace.runs / "networks/together").iterdir()]


def test_one_that_diverges_costs_the_others_nothing(points, taught, tmp_path):
    groups = np.zeros(len(sources.load(points.data).train), np.int32)
    batches = [
        plan_epoch(groups, batch_size=16, seed=seed, epoch=0)[7] for seed in range(3)
    ]
    (mine, *_) = set(batches[1]) - set(batches[0]) - set(batches[2])

    def made(folder, example, kill=None):
        workspace, said = taught(tmp_path / folder, num_devices=4)
        experiment = dataclasses.replace(
            points, objective=points.objective + Unlucky(7, example)
        )
        members = of_seeds(experiment, range(3))
        if kill:
            with killed_at_batch(kill):
                run.make_together(members, workspace)
        run.make_together(members, workspace)
        return directories(members, workspace), said

    undisturbed, _ = made("undisturbed", -1)
    for folder, kill in (("through", None), ("killed", 16)):
        found, said = made(folder, int(mine), kill)
        assert "3 seeds in one program, on 3 of 4 devices" in said
        reason = run_directory.failure(found[1])
        assert reason.startswith("loss/unlucky is nan at step 8; to try a smaller")
        assert f"seed 1: {reason}; the others go on" in said
        log = metrics_log.read(found[1] / "metrics.jsonl")
        assert [row["step"] for row in log] == [*range(1, 8)]
        assert not (found[1] / "summary.json").exists()
        for place in (0, 2):
            assert not run_directory.failure(found[place])
            assert everything(found[place]) == everything(undisturbed[place])
    assert "resuming after step 12 of 20" in said


def test_where_all_diverge_all_are_marked(points, here):
    workspace, _ = here
    wild = dataclasses.replace(
        points, optimizer=AdamW(learning_rate=1e30, clip=0), num_steps=6
    )
    members = of_seeds(wild, (0, 1))
    run.make_together(members, workspace)
    for directory in directories(members, workspace):
        assert "is nan at step" in run_directory.failure(directory)
    assert not [*(workspace.runs / "networks/together").iterdir()]


def held(directory):
    directory.mkdir(parents=True, exist_ok=True)
    lock = open(directory / ".lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_one_that_is_busy_is_left_out_and_made_later(points, here, monkeypatch):
    workspace, _ = here
    short = dataclasses.replace(points, num_steps=4)
    table = Table(rows={"KL": short}, baseline="KL", seeds=(0, 1, 2))
    wanted = cells(table, workspace)
    lock, said = held(wanted[1].directory), []
    waited = types.SimpleNamespace(sleep=lambda _: lock.close())
    monkeypatch.setattr("kd.compare.cells.time", waited)
    make(wanted, workspace, say=said.append, together=True)
    assert [line.partition(": acc")[0] for line in said] == [
        "3 runs, 0 there, 3 to make",
        "2/3 KL, 2 seeds",
        "waiting for 1 runs that other processes make",
        "3/3 KL, seed 1",
    ]
    assert "the mean of 2 seeds together" in said[1]
    seeds = [cell.summary().get("together") for cell in wanted]
    assert seeds == [[0, 2], None, [0, 2]]
    # Made again as it was made, it has the same scores to the bit.
    assert _check(wanted, workspace, 3, said.append) == 0
    assert all(line.endswith("the same scores") for line in said[-3:])


def test_nobody_is_waited_for(points, here):
    workspace, _ = here
    members = of_seeds(points, (0, 1))
    locks = [held(d) for d in directories(members, workspace)]
    with pytest.raises(Busy):
        run.make_together(members, workspace)
    for lock in locks:
        lock.close()


def test_a_group_goes_on_only_where_all_of_it_is_asked_for(points, here):
    workspace, said = here
    members = of_seeds(points, (0, 1, 2))
    with killed_at_batch(10):
        run.make_together(members, workspace)
    groups = workspace.runs / "networks/together"
    assert len([*groups.iterdir()]) == 1
    run.make_together(members[:2], workspace)
    assert "2 seeds in one program, on 2 devices" in said
    assert not any(line.startswith("resuming") for line in said)
    assert len([*groups.iterdir()]) == 1
    # What one was begun alone with is not thrown away either.
    with killed_at_batch(9):
        run.make(members[2], workspace)
    table = Table(rows={"KL": points}, baseline="KL", seeds=(0, 1, 2, 3, 4))
    make(cells(table, workspace), workspace, say=said.append, together=True)
    assert "resuming after step 6 of 20" in said
    assert [cell.summary().get("together") for cell in cells(table, workspace)] == [
        [0, 1], [0, 1], None, [3, 4], [3, 4]
    ]  # fmt: skip
    assert not [*groups.iterdir()]


def test_no_memory_for_all_is_one_line(points, here, monkeypatch):
    workspace, said = here

    def full(*arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nat")

    monkeypatch.setattr(together, "carry_out", full)
    with pytest.raises(UserError) as told:
        run.make_together(of_seeds(points), workspace)
    assert str(told.value) == (
        "out of memory with 4 seeds together (RESOURCE_EXHAUSTED: Out of memory "
        "allocating 9 bytes.); fewer SEEDS at a time need less, and so does "
        "TOGETHER=0, which trains one after the other"
    )
    table = Table(rows={"KL": points}, baseline="KL", seeds=(0, 1))
    make(cells(table, workspace), workspace, say=said.append, together=True)
    assert said[-1].startswith("0/2 KL, 2 seeds: failed (out of memory with 2 seeds")


def test_asked_to_stop_all_stop_and_are_saved(points, here, monkeypatch):
    workspace, said = here
    members = of_seeds(points, (0, 1))
    placing, left = kd.train.loop.shard_batch, [5]

    def asking(batch, mesh):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return placing(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(kd.train.loop, "shard_batch", asking)
        with pytest.raises(Interrupted, match="at step 5, which is saved"):
            run.make_together(members, workspace)
    run.make_together(members, workspace)
    assert "resuming after step 5 of 20" in said
