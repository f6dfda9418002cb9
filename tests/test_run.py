"""Whole runs, on networks that train in a second."""

import dataclasses
import fcntl
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import tiny_experiment

import kd.train.loop
from kd import config, run, run_directory
from kd.data import sources, text
from kd.divergences import KL, SinKD
from kd.errors import UserError
from kd.experiment import Network
from kd.models import bert_checkpoint
from kd.networks.predict import predictor
from kd.objective import CrossEntropy
from kd.run.obtain import key
from kd.train import metrics_log
from kd.train.mesh import data_mesh, replicate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run, for the tests that only need it to have happened."""
    runs = tmp_path_factory.mktemp("finished") / "runs"
    place = run.Workspace(runs, "mini", data_mesh(), print)
    run.run(tiny_experiment(), "tiny", place)
    return runs


@pytest.fixture
def after(finished, place):
    """A place of one's own where that run has happened."""
    shutil.copytree(finished, place.workspace.runs)
    return place


def teacher_run(workspace):
    """The folder of the teacher that was trained."""
    (summary,) = workspace.runs.glob("networks/*/summary.json")
    return summary.parent


def losses(directory):
    rows = metrics_log.read(directory / "metrics.jsonl")
    return {
        row["step"]: [row[k] for k in sorted(row) if "loss" in k or k == "grad_norm"]
        for row in rows
        if row["split"] == "train"
    }


def assert_same_losses(ours, theirs, rtol):
    assert ours.keys() == theirs.keys() and len(ours) == 24
    for step in ours:
        # A term of 1e-5 is a difference of numbers near 1.
        np.testing.assert_allclose(
            ours[step], theirs[step], rtol=rtol, atol=rtol / 10, err_msg=str(step)
        )


def test_a_run_leaves_everything_that_is_looked_at(tiny, after):
    workspace, said = after
    directory = workspace.runs / "tiny" / "0"
    summary = json.loads((directory / "summary.json").read_text())

    assert {path.name for path in directory.iterdir()} >= {
        "config.json", "metrics.jsonl", "summary.json", "report.html",
        "predictions.npz", "plan.npz", "model",
    }  # fmt: skip
    assert not (directory / "checkpoints").exists()
    assert summary["data"]["source"] == "bundled"
    for who in ("teacher", "student"):
        assert 0 <= summary[who]["accuracy"] <= 1
        assert summary[who]["num_params"] > 0
    assert summary["student"]["num_params"] < summary["teacher"]["num_params"]
    assert 0 <= summary["fidelity"]["agreement"] <= 1

    rows = metrics_log.read(directory / "metrics.jsonl")
    training = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in training] == list(range(1, 25))
    for row in training:
        total = 0.1 * row["loss/ce"] + 0.9 * row["loss/kl"] + 0.8 * row["loss/sinkd"]
        np.testing.assert_allclose(row["loss"], total, rtol=1e-5)

    # What was exported predicts what was reported.
    bert, labels = bert_checkpoint.read_config(directory / "model")
    assert labels == ("negative", "positive")
    model = bert.build(2)
    params = bert_checkpoint.load_pretrained(
        directory / "model", jax.eval_shape(model.init, jax.random.key(0), {})
    ).params
    corpus = sources.load(tiny.data)
    tokenizer = text.load(directory / "model", lowercase=True)
    predict = predictor(model, mesh=workspace.mesh)
    found = predict(
        replicate(params, workspace.mesh),
        text.encode(tokenizer, corpus.dev, widths=(16, 32)),
    )
    reported = np.load(directory / "predictions.npz")
    np.testing.assert_allclose(found, reported["student_logits"], rtol=1e-5, atol=1e-6)
    accuracy = np.mean(found.argmax(1) == reported["labels"])
    assert summary["student"]["accuracy"] == accuracy

    # The same command again shows the results and computes nothing.
    assert run.run(tiny, "tiny", workspace) == summary
    assert any("finished" in line for line in said)
    # A page that was lost is written again.
    (directory / "report.html").unlink()
    run.run(tiny, "tiny", workspace)
    assert (directory / "report.html").exists()


def test_teacher_and_its_logits_are_made_once(tiny, after):
    workspace, said = after
    made = {
        path: path.stat().st_mtime_ns for path in workspace.runs.glob("networks/**/*.*")
    }
    assert sum(path.suffix == ".npy" for path in made) == 1
    other = dataclasses.replace(tiny, objective=1.0 * KL(temperature=4.0), seed=5)
    run.run(other, "second", workspace)
    assert any("trained before" in line for line in said)
    now = {
        path: path.stat().st_mtime_ns for path in workspace.runs.glob("networks/**/*.*")
    }
    assert now == made


@pytest.mark.parametrize(
    "assignment",
    [
        "teacher.recipe.seed=1",
        "teacher.recipe.optimizer.learning_rate=0.002",
        "teacher.recipe.student.width=8",
        "teacher.recipe.num_steps=25",
        "data.tokenizer.size=299",
    ],
)
def test_another_recipe_is_another_teacher(tiny, assignment):
    changed = config.override(tiny, assignment).sharing_data()
    ours = key(tiny.teacher.recipe, "data")
    assert key(changed.teacher.recipe, "data") != ours
    assert key(tiny.teacher.recipe, "other data") != ours
    # How often something is logged does not matter.
    quiet = config.override(tiny, "teacher.recipe.log_every=7")
    assert key(quiet.teacher.recipe, "data") == ours


def test_a_network_in_another_place_is_another_network(tiny, after, tmp_path):
    workspace, _ = after
    first = teacher_run(workspace) / "model"
    again = shutil.copytree(first, tmp_path / "again")
    other = shutil.copytree(first, tmp_path / "other")
    weights = safetensors.numpy.load_file(other / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    safetensors.numpy.save_file(
        weights, other / "model.safetensors", metadata={"format": "pt"}
    )

    def begun(place):
        return dataclasses.replace(
            tiny.teacher.recipe, student=None, start=Network(place=str(place))
        )

    # Contents count, wherever they lie.
    assert key(begun(first), "data") == key(begun(again), "data")
    assert key(begun(first), "data") != key(begun(other), "data")

    run.run(begun(first), "begun", workspace)
    run.run(begun(again), "begun", workspace)
    with pytest.raises(UserError, match="holds a run of another configuration"):
        run.run(begun(other), "begun", workspace)


def test_live_teacher_gives_the_losses_of_the_cached_one(tiny, after):
    workspace, _ = after
    run.run(config.override(tiny, "answers=live"), "live", workspace)
    assert_same_losses(
        losses(workspace.runs / "live/0"),
        losses(workspace.runs / "tiny/0"),
        rtol=1e-5,
    )


def test_four_devices_give_the_losses_of_one(tiny, after):
    workspace, _ = after
    assert workspace.mesh.size == 4
    run.run(
        tiny, "one", dataclasses.replace(workspace, mesh=data_mesh(jax.devices()[:1]))
    )
    four, one = losses(workspace.runs / "tiny/0"), losses(workspace.runs / "one/0")
    assert_same_losses(four, one, rtol=1e-5)


def test_nothing_compiles_once_the_widths_are_warm(place, monkeypatch):
    workspace, _ = place
    tiny = tiny_experiment(widths=(16, 32))
    compiled = []

    def note(event: str, duration: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)  # pyrefly: ignore
    at_step: list[int] = []
    place_batch = kd.train.loop.shard_batch

    def counted(batch, mesh):
        at_step.append(len(compiled))
        return place_batch(batch, mesh)

    monkeypatch.setattr(kd.train.loop, "shard_batch", counted)
    assert tiny.teacher and tiny.teacher.recipe
    run.run(tiny.teacher.recipe, "tiny", workspace)
    # By its 12th step every width has been met; evaluations come later.
    assert at_step[0] < at_step[11] == at_step[23]


def test_another_configuration_is_refused_and_nothing_lost(tiny, after):
    workspace, _ = after
    before = (workspace.runs / "tiny/0/summary.json").read_text()
    changed = config.override(tiny, "objective.sinkd.epsilon=0.2")
    with pytest.raises(UserError, match=r"objective\.sinkd\.epsilon: 0\.1 -> 0\.2"):
        run.run(changed, "tiny", workspace)
    assert (workspace.runs / "tiny/0/summary.json").read_text() == before


def test_a_folder_of_something_else_is_refused(tiny, place):
    workspace, _ = place
    (workspace.runs / "tiny/0").mkdir(parents=True)
    (workspace.runs / "tiny/0/thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="no run of ours"):
        run.run(tiny, "tiny", workspace)


def test_a_folder_at_work_is_refused(tiny, place):
    workspace, _ = place
    (workspace.runs / "tiny/0").mkdir(parents=True)
    with open(workspace.runs / "tiny/0/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work"):
            run.run(tiny, "tiny", workspace)


def test_a_trained_teacher_may_be_given_as_a_directory(tiny, after):
    workspace, _ = after
    of_teacher = teacher_run(workspace)
    given = config.override(tiny, f"teacher={of_teacher}")
    summary = run.run(given, "given", workspace)
    trained = json.loads((of_teacher / "summary.json").read_text())
    assert summary["teacher"]["accuracy"] == trained["student"]["accuracy"]


def test_a_teacher_of_another_task_is_refused(tiny, after):
    workspace, _ = after
    of_teacher = teacher_run(workspace)
    directory = of_teacher / "model"
    description = json.loads((directory / "config.json").read_text())
    description["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (directory / "config.json").write_text(json.dumps(description))
    given = config.override(tiny, f"teacher={directory}")
    with pytest.raises(UserError, match="teacher has 3 classes, the task has 2"):
        run.run(given, "given", workspace)


def test_damaged_logits_are_computed_again(tiny, after):
    workspace, said = after
    (path,) = workspace.runs.glob("networks/answers/*.npy")
    path.write_bytes(path.read_bytes()[:1000])
    run.run(tiny, "second", workspace)
    assert any(f"{path} is damaged" in line for line in said)
    assert_same_losses(
        losses(workspace.runs / "second/0"), losses(workspace.runs / "tiny/0"), rtol=0
    )


def test_a_loss_that_is_not_finite_stops_the_run(tiny, after):
    workspace, _ = after
    # Weights of this size overflow in the next forward pass, not before.
    wild = config.override(
        tiny, "optimizer.learning_rate=1e18", "optimizer.warmup=0", "save_every=1"
    )
    with pytest.raises(UserError) as stopped:
        run.run(wild, "wild", workspace)
    message = str(stopped.value)
    assert "at step" in message and "\n" not in message
    assert "loss/" in message
    assert "the last checkpoint, known to be finite, is that of step" in message
    assert not (workspace.runs / "wild/0/summary.json").exists()


def test_microbatches_and_odd_batches_change_only_what_they_must(tiny, after):
    """Without dropout and SinKD, parts give the losses of the whole."""
    workspace, _ = after
    plain = dataclasses.replace(
        tiny,
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0),
        student=dataclasses.replace(tiny.student, dropout=0.0, attention_dropout=0.0),
        batch_size=13,
    )
    run.run(plain, "whole", workspace)
    run.run(config.override(plain, "num_microbatches=3"), "parts", workspace)
    one = dataclasses.replace(workspace, mesh=data_mesh(jax.devices()[:1]))
    run.run(plain, "one", one)
    whole = losses(workspace.runs / "whole/0")
    assert_same_losses(losses(workspace.runs / "parts/0"), whole, rtol=1e-4)
    assert_same_losses(losses(workspace.runs / "one/0"), whole, rtol=1e-5)


def test_bfloat16_stays_near_float32(tiny, after):
    workspace, _ = after
    run.run(config.override(tiny, "compute_dtype=bfloat16"), "bfloat16", workspace)
    exact = losses(workspace.runs / "tiny/0")
    found = losses(workspace.runs / "bfloat16/0")
    assert found != exact
    for step in exact:
        np.testing.assert_allclose(found[step], exact[step], rtol=0.1, atol=0.02)


def test_a_failed_start_does_not_claim_the_folder(tmp_path):
    with run_directory.claim(tmp_path, {"experiment": {"batch_size": 1}}):
        (tmp_path / "model").mkdir()
    with run_directory.claim(tmp_path, {"experiment": {"batch_size": 2}}):
        assert not (tmp_path / "model").exists()
        (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    with (
        pytest.raises(UserError, match=r"experiment\.batch_size: 2 -> 3"),
        run_directory.claim(tmp_path, {"experiment": {"batch_size": 3}}),
    ):
        pass


def test_what_does_not_change_results_may_change(tmp_path):
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    run_directory.write_json(tmp_path / "config.json", {"log_every": 1, "seed": 0})
    with run_directory.claim(tmp_path, {"log_every": 5, "seed": 0}):
        pass


def test_a_draft_left_by_a_kill_does_not_matter(tmp_path):
    (tmp_path / ".config.json.123").write_text("{")
    with run_directory.claim(tmp_path, {}):
        assert (tmp_path / "config.json").exists()


def test_pretrained_weights_and_their_vocabulary(tiny, after, tmp_path):
    """The way of the paper's scale: from a published checkpoint, through a teacher."""
    workspace, said = after
    of_teacher = teacher_run(workspace)
    published = of_teacher / "model"
    (published / "tokenizer.json").unlink()  # vocab.txt is what old checkpoints have
    pretrained = config.override(tiny, f"start={published}", f"teacher={published}")
    assert pretrained.student is None
    run.run(pretrained, "pretrained", workspace)
    assert any(f"weights to start from: {published}" in line for line in said)
    # It starts where the published one ended, much better than chance.
    first = metrics_log.read(workspace.runs / "pretrained/0/metrics.jsonl")[0]
    fresh = metrics_log.read(of_teacher / "metrics.jsonl")
    last = [row for row in fresh if row["split"] == "train"][-1]
    assert abs(first["loss/ce"] - last["loss/ce"]) < 0.2

    other = config.override(
        tiny, f"start={published}", "student.num_heads=1", "student.mlp_width=8"
    )
    with pytest.raises(UserError, match="num_heads 2, not 1; mlp_width 32, not 8"):
        run.run(other, "heads", workspace)


def test_read_only_place(tiny, place):
    workspace, _ = place
    if os.geteuid() == 0:
        workspace = dataclasses.replace(workspace, runs=pathlib.Path("/proc/runs"))
    else:
        workspace.runs.mkdir()
        workspace.runs.chmod(0o500)
    with pytest.raises(UserError, match="cannot write to"):
        run.run(tiny, "tiny", workspace)


def test_a_plan_that_misses_its_marginals_is_told_once(tiny, after, monkeypatch):
    monkeypatch.setattr("kd.train.block._MARGINAL_ERROR", 0.0)
    sinkd = SinKD(epsilon=1e-3, num_iters=1)
    experiment = dataclasses.replace(
        tiny, objective=1.0 * CrossEntropy() + 1.0 * sinkd, num_steps=8
    )
    run.run(experiment, "strict", after.workspace)
    (warning,) = (line for line in after.said if "marginals" in line)
    assert warning.startswith("sinkd: the transport plan of step 1 misses")
