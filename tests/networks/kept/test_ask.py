"""Teachers whose answers are kept: whole runs, kills, caches of others."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from lore import recipe_in
from points import whole_and_resumed

from kd import config, run
from kd.cache import command
from kd.divergences import KL, LogitMSE, PerToken, SkewedKL
from kd.errors import UserError
from kd.experiment import Network
from kd.models.gpt2 import GPT2
from kd.networks.kept import HiddenAndHead, TopK, ask
from kd.networks.kept import folder as folders
from kd.objective import CrossEntropy
from kd.run.cache import cache
from kd.train import metrics_log

pytestmark = pytest.mark.slow
ONE_TEMPERATURE = 0.3 * PerToken(CrossEntropy()) + 0.7 * PerToken(KL(temperature=2.0))


@pytest.fixture
def experiment(tmp_path):
    recipe = recipe_in(tmp_path / "data")
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        student=GPT2(
            num_layers=1, width=8, num_heads=2, mlp_width=16, max_length=32,
            dropout=0.1,
        ),
        objective=ONE_TEMPERATURE,
    )  # fmt: skip


def losses(place, name):
    rows = metrics_log.read(place.workspace.runs / name / "0/metrics.jsonl")
    return np.array([row["loss"] for row in rows if row["split"] == "train"])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


def test_from_text_to_page(experiment, place):
    two = 0.5 * PerToken(KL(temperature=2.0)) + 0.5 * PerToken(SkewedKL())
    few = dataclasses.replace(experiment, objective=two, keep=TopK(k=8))
    summary, _ = whole_and_resumed(few, place)
    (facts,) = summary["teacher"]["kept"]
    assert facts["what"].startswith("top 8 of 2")
    assert facts["what"].endswith("at temperatures 1,2")
    assert facts["bytes_per_prediction"] == 4 * 8 + 2 * 4
    # The last row is short.
    assert 63 * 16 < facts["sample"]["predictions"] < 64 * 16
    assert 0 < facts["mass_outside"]["mean"][0] < facts["mass_outside"]["mean"][1] < 1
    assert 0 < facts["log_probability_error"]["max"][0] < 1e-2
    said = [line for line in place.said if line.startswith("answers of its recipe")]
    assert len(said) == 2 and "to write in" in said[0]


def test_what_is_kept_teaches_as_much_as_it_holds(experiment, place):
    dense = run.run(experiment, "dense", place.workspace)
    assert "kept" not in dense["teacher"]
    num_classes = len(
        np.load(next((place.workspace.runs / "networks/answers").glob("*.npy")))[0, 0]
    )
    found = {}
    for name, keep in {
        "all but one": TopK(k=num_classes - 1),
        "few": TopK(k=4),
        "exact": HiddenAndHead("float32"),
        "hidden": HiddenAndHead(),
    }.items():
        kept = dataclasses.replace(experiment, keep=keep)
        summary = run.run(kept, name, place.workspace)
        assert summary["teacher_queries"] == dense["teacher_queries"]
        found[name] = np.abs(losses(place, name) / losses(place, "dense") - 1)
    assert found["exact"].max() < 1e-5
    assert found["hidden"].max() < 1e-3 and found["all but one"].max() < 1e-3
    assert found["few"][0] > 1e-2  # less is seen, and less there is
    assert losses(place, "few")[0] < losses(place, "dense")[0]


class _Killed(BaseException):
    pass


def test_a_kill_while_writing_loses_a_chunk_at_most(experiment, place, monkeypatch):
    few = dataclasses.replace(experiment, keep=TopK(k=8))
    workspace, said = place
    whole = cache(few, workspace).kept[0].folder
    expected = content(whole)
    monkeypatch.setattr(folders, "_CHUNK", 1)
    # Rows are few: so that there are several batches.
    monkeypatch.setattr("kd.networks.predict._MOST_ROWS", 4)
    for path in whole.glob("*.*"):
        path.unlink()
    write, left = folders.Writer.write, [3]

    def until_killed(self, places, arrays):
        left[0] -= 1
        if left[0] < 0:
            raise _Killed
        write(self, places, arrays)

    fresh = run.Workspace(workspace.runs, "mini", workspace.mesh, said.append)
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(folders.Writer, "write", until_killed)
        cache(few, fresh)
    manifest = json.loads((whole / "manifest.json").read_text())
    done = 3 * 4 * jax.device_count()
    assert manifest["rows_done"] == done and manifest["measured"] is None
    fresh = run.Workspace(workspace.runs, "mini", workspace.mesh, said.append)
    cache(few, fresh)
    assert any(f"going on with {done} done" in line for line in said)
    again = content(whole)
    assert again["ids.bin"] == expected["ids.bin"]
    for name in ("values.bin", "tails.bin"):
        dtype = np.float16 if name == "values.bin" else np.float32
        # Of batches of another size: up to the rounding of the network.
        np.testing.assert_allclose(
            np.frombuffer(again[name], dtype), np.frombuffer(expected[name], dtype),
            atol=4e-3,
        )  # fmt: skip
    for path in whole.glob("*.*"):
        path.unlink()
    cache(few, run.Workspace(workspace.runs, "mini", workspace.mesh, said.append))
    assert content(whole) == again  # bit for bit, killed or not


def test_what_is_damaged_is_made_again_and_others_are_kept_apart(experiment, place):
    few = dataclasses.replace(experiment, keep=TopK(k=8))
    workspace, said = place

    def fresh():
        return run.Workspace(workspace.runs, "mini", workspace.mesh, said.append)

    whole = cache(few, fresh()).kept[0].folder
    expected = content(whole)
    (whole / "ids.bin").write_bytes(b"few")
    assert cache(few, fresh()).kept[0].folder == whole
    assert content(whole) == expected
    (line,) = [line for line in said if line.endswith("; making it again")]
    assert "ids.bin has 3 bytes, not " in line
    recipe = dataclasses.replace(experiment.teachers[0].recipe, seed=1)
    for other in (
        dataclasses.replace(few, keep=TopK(k=9)),
        dataclasses.replace(few, keep=HiddenAndHead()),
        dataclasses.replace(few, teachers=(Network(recipe=recipe),)),
        config.override(few, "data.length=12"),
        config.override(few, "objective.kl.loss.temperature=3"),
    ):
        other = other.sharing_data()
        assert cache(other, fresh()).kept[0].folder != whole
    assert content(whole) == expected


def test_examples_without_an_answer(experiment, place):
    data = dataclasses.replace(experiment.data, unanswered=0.5)
    some = dataclasses.replace(experiment, data=data)
    some = dataclasses.replace(some, num_steps=4).sharing_data()
    dense = run.run(some, "dense", place.workspace)
    kept = dataclasses.replace(some, keep=HiddenAndHead("float32"))
    summary = run.run(kept, "kept", place.workspace)
    np.testing.assert_allclose(losses(place, "kept"), losses(place, "dense"), rtol=1e-5)
    assert summary["teacher_queries"] == dense["teacher_queries"]


def test_what_does_not_fit(experiment, place, monkeypatch):
    with pytest.raises(UserError, match=r"keep=999: there are 2\d\d classes, so k is"):
        cache(dataclasses.replace(experiment, keep=TopK(k=999)), place.workspace)
    few = dataclasses.replace(experiment, keep=TopK(k=8))
    monkeypatch.setattr(
        folders.shutil, "disk_usage", lambda path: type("", (), {"free": 10})
    )
    with pytest.raises(UserError, match=r"answers of .* take .* has 10 bytes left"):
        cache(few, place.workspace)
    for wrong, line in (
        ({"answers": "live"}, "answers=live keeps nothing"),
        ({"objective": 1.0 * PerToken(CrossEntropy())}, "asks no teacher"),
    ):
        with pytest.raises(UserError, match=line):
            cache(dataclasses.replace(experiment, **wrong), place.workspace)


def test_an_experiment_refuses_what_cannot_be_learnt(experiment):
    few = dataclasses.replace(experiment, keep=TopK(k=8))
    for wrong, line in (
        ({"answers": "live"}, "answers=live keeps none; set answers=cached"),
        (
            {"objective": 1.0 * PerToken(LogitMSE())},
            "logit_mse needs the logits of all",
        ),
        ({"teachers": few.teachers * 2}, "other classes of each of 2 teachers"),
    ):
        with pytest.raises(ValueError, match=line):
            dataclasses.replace(few, **wrong)
    assert config.override(experiment, "keep=64").keep == TopK(k=64)
    assert config.override(few, "keep.k=3").keep == TopK(k=3)
    assert config.override(few, "keep=hidden").keep == HiddenAndHead()
    with pytest.raises(UserError, match="keep=top: expected dense, hidden"):
        config.override(experiment, "keep=top")
    assert config.identity(config.to_json(experiment)).get("keep") is None


def test_another_process_may_write_it(experiment, place, monkeypatch):
    """Who waited finds it whole, and asks nobody."""
    few = dataclasses.replace(experiment, keep=TopK(k=8))
    workspace, said = place
    whole = cache(few, workspace).kept[0].folder
    looks = iter([folders.Found()])
    look = folders.look
    monkeypatch.setattr(
        folders, "look", lambda *given: next(looks, None) or look(*given)
    )
    monkeypatch.setattr(ask, "_write", None)
    fresh = run.Workspace(workspace.runs, "mini", workspace.mesh, said.append)
    assert cache(few, fresh).kept[0].folder == whole


def test_the_command(experiment, place, monkeypatch, capsys):
    monkeypatch.setattr("kd.catalog.load", lambda name, scale: experiment)
    runs = str(place.workspace.runs)
    monkeypatch.setattr("kd.options.runs", lambda given: given.runs)
    assert command.main(["lore_kd", f"--runs={runs}", "keep=8"]) == 0
    shown = capsys.readouterr().out
    assert "36.0 bytes a prediction; on " in shown and "mass outside" in shown
    with pytest.raises(UserError, match="of which experiment"):
        command.main([])


def test_seeds_train_together_from_it(experiment, place):
    kept = dataclasses.replace(
        experiment, keep=HiddenAndHead(), num_steps=4,
        student=dataclasses.replace(
            experiment.student, dropout=0.0, embedding_dropout=0.0,
            attention_dropout=0.0,
        ),
    )  # fmt: skip
    for keep in (HiddenAndHead(), TopK(k=8)):
        both = [dataclasses.replace(kept, keep=keep, seed=seed) for seed in (0, 1)]
        run.make_together(both, place.workspace)
        for member in both:
            folder = run.folder_of(member, place.workspace)
            together = metrics_log.read(folder / "metrics.jsonl")
            run.run(member, f"alone {type(keep).__name__}", place.workspace)
            name = f"alone {type(keep).__name__}/{member.seed}/metrics.jsonl"
            alone = metrics_log.read(place.workspace.runs / name)
            for ours, theirs in zip(together, alone, strict=True):
                for metric in ("loss", "nll"):
                    if metric in ours:
                        assert ours[metric] == pytest.approx(theirs[metric], rel=1e-4)
