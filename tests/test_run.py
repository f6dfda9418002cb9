"""Whole runs, on networks that train in a second."""

import dataclasses
import fcntl
import json
import os

import jax
import numpy as np
import pytest

from kd import config, run
from kd.data import sources, text
from kd.divergences import KL
from kd.errors import UserError
from kd.evaluate.predict import predictor
from kd.models import hub
from kd.train import metrics_log
from kd.train.mesh import data_mesh, replicate

pytestmark = pytest.mark.slow


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
        np.testing.assert_allclose(ours[step], theirs[step], rtol=rtol, err_msg=step)


def test_a_run_leaves_everything_that_is_looked_at(tiny, tiny_host):
    host, said = tiny_host
    summary = run.run(tiny, "tiny", host)
    directory = host.runs / "tiny" / "0"

    assert {path.name for path in directory.iterdir()} >= {
        "config.json", "metrics.jsonl", "summary.json", "report.html",
        "predictions.npz", "plan.npz", "model",
    }  # fmt: skip
    assert not (directory / "checkpoints").exists()
    assert summary == json.loads((directory / "summary.json").read_text())
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
    bert, labels = hub.read_config(directory / "model")
    assert labels == ("negative", "positive")
    model = bert.build(2)
    params = hub.load_pretrained(
        directory / "model", jax.eval_shape(model.init, jax.random.key(0), {})
    ).params
    corpus = sources.load(tiny.data)
    tokenizer = text.load(directory / "model", lowercase=True)
    predict = predictor(model, widths=tiny.widths, mesh=host.mesh)
    found = predict(
        replicate(params, host.mesh), text.encode(tokenizer, corpus.dev, max_length=32)
    )
    reported = np.load(directory / "predictions.npz")
    np.testing.assert_allclose(found, reported["student_logits"], rtol=1e-5, atol=1e-6)
    accuracy = np.mean(found.argmax(1) == reported["labels"])
    assert summary["student"]["accuracy"] == accuracy

    # The same command again shows the results and computes nothing.
    said.clear()
    assert run.run(tiny, "tiny", host) == summary
    assert any("finished" in line for line in said)
    # A page that was lost is written again.
    (directory / "report.html").unlink()
    run.run(tiny, "tiny", host)
    assert (directory / "report.html").exists()


def test_teacher_and_its_logits_are_made_once(tiny, tiny_host):
    host, said = tiny_host
    run.run(tiny, "first", host)
    made = {path: path.stat().st_mtime_ns for path in host.runs.glob("teachers/**/*.*")}
    assert sum(path.suffix == ".npy" for path in made) == 1
    said.clear()
    other = dataclasses.replace(tiny, objective=1.0 * KL(temperature=4.0), seed=5)
    run.run(other, "second", host)
    assert any("trained before" in line for line in said)
    now = {path: path.stat().st_mtime_ns for path in host.runs.glob("teachers/**/*.*")}
    assert now == made


@pytest.mark.parametrize(
    "assignment",
    [
        "teacher.recipe.seed=1",
        "teacher.recipe.optimizer.learning_rate=0.002",
        "teacher.recipe.student.width=8",
        "teacher.recipe.num_steps=25",
        "teacher.recipe.tokenizer.size=299",
    ],
)
def test_another_recipe_is_another_teacher(tiny, assignment):
    from kd import teacher

    changed = config.override(tiny, assignment)
    ours = teacher.key(tiny.teacher.recipe, "data")
    assert teacher.key(changed.teacher.recipe, "data") != ours
    assert teacher.key(tiny.teacher.recipe, "other data") != ours
    # How often something is logged does not matter.
    quiet = config.override(tiny, "teacher.recipe.log_every=7")
    assert teacher.key(quiet.teacher.recipe, "data") == ours


def test_live_teacher_gives_the_losses_of_the_cached_one(tiny, tiny_host):
    host, _ = tiny_host
    run.run(tiny, "cached", host)
    run.run(config.override(tiny, "teacher=live"), "live", host)
    assert_same_losses(
        losses(host.runs / "live/0"), losses(host.runs / "cached/0"), rtol=1e-5
    )


def test_four_devices_give_the_losses_of_one(tiny, tiny_host):
    host, _ = tiny_host
    assert host.mesh.size == 4
    run.run(tiny, "four", host)
    run.run(tiny, "one", host._replace(mesh=data_mesh(jax.devices()[:1])))
    four, one = losses(host.runs / "four/0"), losses(host.runs / "one/0")
    assert_same_losses(four, one, rtol=1e-5)


def test_nothing_compiles_once_the_widths_are_warm(tiny, tiny_host, monkeypatch):
    host, _ = tiny_host
    compiled = []

    def note(event: str, duration: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)  # pyrefly: ignore
    import kd.fit

    procedures, at_step = [], {}
    offline, step_of = kd.fit.offline, kd.train.loop.shard_batch
    monkeypatch.setattr(
        kd.fit, "offline", lambda *a, **k: procedures.append(offline(*a, **k)) or
        procedures[-1],
    )  # fmt: skip

    def counted(batch, mesh):
        at_step[len(at_step)] = len(compiled)
        return step_of(batch, mesh)

    monkeypatch.setattr(kd.train.loop, "shard_batch", counted)
    lonely = config.override(tiny, "teacher=live")
    run.run(dataclasses.replace(lonely, num_steps=40), "tiny", host)
    for procedure in procedures:
        assert procedure.step._cache_size() == len(tiny.widths)
    # at_step counts the teacher's 24 steps first.
    student = [at_step[i] for i in range(24, 64)]
    assert student[-1] == student[20]


def test_another_configuration_is_refused_and_nothing_lost(tiny, tiny_host):
    host, _ = tiny_host
    run.run(tiny, "tiny", host)
    before = (host.runs / "tiny/0/summary.json").read_text()
    changed = config.override(tiny, "objective.sinkd.epsilon=0.2")
    with pytest.raises(UserError, match=r"objective\.sinkd\.epsilon: 0\.1 -> 0\.2"):
        run.run(changed, "tiny", host)
    assert (host.runs / "tiny/0/summary.json").read_text() == before


def test_a_folder_of_something_else_is_refused(tiny, tiny_host):
    host, _ = tiny_host
    (host.runs / "tiny/0").mkdir(parents=True)
    (host.runs / "tiny/0/thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="no run of ours"):
        run.run(tiny, "tiny", host)


def test_a_folder_at_work_is_refused(tiny, tiny_host):
    host, _ = tiny_host
    (host.runs / "tiny/0").mkdir(parents=True)
    with open(host.runs / "tiny/0/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work"):
            run.run(tiny, "tiny", host)


def test_a_trained_teacher_may_be_given_as_a_directory(tiny, tiny_host):
    host, _ = tiny_host
    run.run(tiny.teacher.recipe, "teacher_run", host)
    given = config.override(tiny, f"teacher={host.runs / 'teacher_run/0'}")
    summary = run.run(given, "tiny", host)
    trained = json.loads((host.runs / "teacher_run/0/summary.json").read_text())
    assert summary["teacher"]["accuracy"] == trained["student"]["accuracy"]
    assert not [p for p in host.runs.glob("teachers/*") if p.name != "logits"]


def test_a_teacher_of_another_task_is_refused(tiny, tiny_host):
    host, _ = tiny_host
    run.run(tiny.teacher.recipe, "teacher_run", host)
    directory = host.runs / "teacher_run/0/model"
    description = json.loads((directory / "config.json").read_text())
    description["id2label"] = {"0": "a", "1": "b", "2": "c"}
    (directory / "config.json").write_text(json.dumps(description))
    given = config.override(tiny, f"teacher={directory}")
    with pytest.raises(UserError, match="teacher has 3 classes, the task has 2"):
        run.run(given, "tiny", host)


def test_damaged_logits_are_computed_again(tiny, tiny_host):
    host, said = tiny_host
    run.run(tiny, "first", host)
    (path,) = host.runs.glob("teachers/logits/*.npy")
    path.write_bytes(path.read_bytes()[:1000])
    run.run(tiny, "second", host)
    assert any(f"{path} is damaged" in line for line in said)
    assert_same_losses(
        losses(host.runs / "second/0"), losses(host.runs / "first/0"), rtol=0
    )


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tiny_host):
    host, _ = tiny_host
    wild = config.override(tiny, "optimizer.learning_rate=1e25")
    with pytest.raises(UserError) as stopped:
        run.run(config.override(wild, "save_every=1"), "wild", host)
    message = str(stopped.value)
    assert "at step" in message and "\n" not in message
    assert "loss/" in message or "grad_norm" in message
    assert "the last good checkpoint is that of step" in message
    assert not (host.runs / "wild/0/summary.json").exists()


@pytest.mark.parametrize(
    "assignment", ["compute_dtype=bfloat16", "num_microbatches=3", "batch_size=13"]
)
def test_options_that_change_the_step(tiny, tiny_host, assignment):
    host, _ = tiny_host
    summary = run.run(config.override(tiny, assignment), "tiny", host)
    assert np.isfinite(summary["student"]["nll"])


def test_read_only_place(tiny, tiny_host):
    host, _ = tiny_host
    if os.geteuid() == 0:
        host = host._replace(runs=host.runs.__class__("/proc/runs"))
    else:
        host.runs.mkdir()
        host.runs.chmod(0o500)
    with pytest.raises(UserError, match="cannot write to"):
        run.run(tiny, "tiny", host)
