"""What is told of a run's memory before it, and what the run then has."""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
import pytest
from lore import task_in
from points import experiment_on, write_table

import kd.objective.mix
import kd.run.fit
from kd import config, run
from kd.divergences import KL, PerSequence, PerToken, SinKD
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.experiment import Experiment, Network
from kd.features import Hints, RKDDistance
from kd.models.gpt2 import GPT2
from kd.models.mlp import MLP
from kd.networks.kept import Dense, HiddenAndHead, TopK
from kd.objective import CrossEntropy
from kd.procedures.online import Online, Peer
from kd.run import requirements as r
from kd.run.memory import table, told
from kd.run.relief import caveat, relief
from kd.run.shared import Shared
from kd.scheduled import scheduled
from kd.train.mesh import shard_batch
from kd.train.optimizer import AdamW
from kd.transport.cost import Cosine

pytestmark = pytest.mark.slow

KD = 0.5 * CrossEntropy() + 0.5 * KL()


class _Begun(BaseException):
    """What no part of a run expects."""


@pytest.fixture
def taught(tmp_path):
    """Points in the plane, with a teacher by a recipe that nobody has run."""
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    target = Classes(("low", "high"))
    recipe = experiment_on(tmp_path / "data", target, 1.0 * CrossEntropy())
    recipe = dataclasses.replace(recipe, num_steps=2)

    def make(**fields):
        teacher = dataclasses.replace(recipe, student=MLP(widths=(32, 16)))
        settings: dict[str, Any] = {
            "objective": KD,
            "teachers": (Network(recipe=teacher),),
        } | fields
        return dataclasses.replace(recipe, **settings).sharing_data()

    return make


@pytest.fixture
def language(tmp_path):
    """Text in a vocabulary of 273, and a teacher that has not been trained."""
    recipe = Experiment(
        data=task_in(tmp_path / "data", num_lines=60),
        student=GPT2(num_layers=1, width=16, num_heads=2, mlp_width=16, max_length=32),
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(learning_rate=1e-2),
        batch_size=16,
        num_steps=2,
    )  # fmt: skip
    return dataclasses.replace(
        recipe, teachers=(Network(recipe=recipe),), answers="live",
        student=GPT2(num_layers=2, width=8, num_heads=2, mlp_width=16, max_length=32),
        objective=0.5 * PerToken(CrossEntropy()) + 0.5 * PerToken(KL()),
    ).sharing_data()  # fmt: skip


def at_the_start(experiment, place, monkeypatch):
    """What a run has when its loop begins: the step, and what it is given."""
    begun = []
    train = kd.run.fit.train

    def only_begun(training, state, teacher_params, batches, **settings):
        if settings["pace"].num_steps != experiment.num_steps:  # a teacher's run
            return train(training, state, teacher_params, batches, **settings)
        batch = shard_batch(batches[0], settings["mesh"])
        begun.append((training.step, state, teacher_params, batch))
        raise _Begun

    monkeypatch.setattr(kd.run.fit, "train", only_begun)
    with pytest.raises(_Begun):
        run.run(experiment, "one", place.workspace)
    monkeypatch.setattr(kd.run.fit, "train", train)
    return begun[0]


def held(tree):
    """Bytes on the first device."""
    first = jax.devices()[0]
    return sum(
        shard.data.size * shard.data.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == first
    )


CASES = {
    "labels alone": {"objective": 1.0 * CrossEntropy()},
    "cached": {},
    "live": {"answers": "live"},
    "in parts": {"num_microbatches": 2},
    "vectors": {"objective": KD + RKDDistance()},
    "hidden states, and what a loss learns": {"objective": KD + Hints()},
    "two learners": {
        "procedure": Online(
            peers=(Peer(network=MLP(widths=(24,))),), with_teachers=True
        )
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_told_is_what_a_run_has(case, taught, place, monkeypatch):
    experiment = taught(num_steps=3, **CASES[case])
    before = told(experiment, place.workspace)
    assert not place.workspace.runs.exists()  # Nothing was trained.
    workspace = dataclasses.replace(place.workspace, shared=Shared())
    place = place._replace(workspace=workspace)
    step, state, teachers, batch = at_the_start(experiment, place, monkeypatch)
    analysis = step.lower(state, teachers, batch).compile().memory_analysis()
    assert before.of(r.PARAMETERS) == held(state.params)
    assert before.of(r.OPTIMIZER) == held(state.opt_state)
    assert before.of(r.BATCH) == held(batch)
    assert before.of(r.TEMPORARIES) == analysis.temp_size_in_bytes > 0
    assert before.of(r.RETURNED) == (
        analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    )
    one = sum(x.size for x in (np.zeros((2, 32)), np.zeros(32)))
    two = sum(x.size for x in (np.zeros((32, 16)), np.zeros(16), np.zeros((16, 2))))
    assert before.of(r.TEACHERS) == 4 * (one + two + 2)
    in_step = before.of(r.TEACHERS) if jax.tree.leaves(teachers) else 0
    assert in_step == held(teachers)
    # What the step does not read is no argument of it.
    arguments = held((state.step, state.params, state.opt_state, batch, teachers)) + 8
    read = analysis.argument_size_in_bytes
    unread = 4 * 16 // place.workspace.mesh.size  # "index"
    assert arguments - unread - before.of(r.BATCH) <= read <= arguments
    assert before.total == sum(x.num_bytes for x in before.device)
    assert before.largest.num_bytes == max(x.num_bytes for x in before.device)


def test_micro_batches_part_what_is_compared_over_the_batch(taught):
    for loss, parted in (
        (SinKD(), "sinkd then compares examples of a part"),
        (PerToken(SinKD()), "sinkd then compares examples of a part"),
        (PerSequence(SinKD()), ""),
        (scheduled(PerToken(KL()), **{"loss.temperature": lambda step: 2.0}), ""),
    ):
        assert caveat([CrossEntropy(), loss]).removeprefix("; ") == parted


def test_the_host_has_data_and_answers(taught, place):
    cached = told(taught(), place.workspace)
    sizes = {one.name: one for one in cached.host}
    train = run.read(taught().data, place.workspace).train
    assert sizes["cached answers"].num_bytes == 4 * 2 * len(train)
    assert sizes["cached answers"].note == "memory-mapped from disk"
    assert sizes["data set"].num_bytes >= train.inputs.nbytes
    live = told(taught(answers="live"), place.workspace)
    assert [one.name for one in live.host] == ["data set"]
    few = taught()
    few = dataclasses.replace(
        few, data=dataclasses.replace(few.data, unanswered=0.5)
    ).sharing_data()
    found = {one.name: one for one in told(few, place.workspace).host}
    assert found["cached answers"].note == "in memory"


def test_the_widest_batch_counts(place, tiny):
    """Of text in two widths, wherever in the epoch the wider one comes."""
    narrow = dataclasses.replace(
        tiny, data=dataclasses.replace(tiny.data, widths=(8, 32))
    )
    for seed in (0, 1, 2):
        experiment = dataclasses.replace(narrow, seed=seed).sharing_data()
        found = told(experiment, place.workspace, False)
        (batch,) = (one for one in found.device if one.name == r.BATCH)
        assert batch.note.endswith("x 32")


def test_the_largest_is_named_with_what_lowers_it(taught, place):
    wide = taught(student=MLP(widths=(64, 64)), batch_size=512)
    found = told(wide, place.workspace)

    def again(experiment, compiled):
        return told(experiment, place.workspace, compiled)

    line = relief(wide, found, again)
    shown = r"largest: (.*), [\d.]+ \w+: (\S+) makes it ([\d.]+ \w+)"
    matched = re.fullmatch(shown, line)
    assert matched
    named, wanted, size = matched.groups()
    assert named == max(found.device, key=lambda x: x.num_bytes).name
    changed = told(config.override(wide, wanted), place.workspace)
    assert changed.of(named) < found.of(named)
    assert kd.run.requirements.size(changed.of(named)) == size
    # Few examples and much to learn: no batch would help.
    deep = taught(student=MLP(widths=(256, 256)), batch_size=4)
    found = told(deep, place.workspace, False)
    assert found.largest.name == r.OPTIMIZER
    assert "student.widths=128,128 makes it" in relief(deep, found, again)
    assert relief(deep, found).endswith("student.widths=128,128 lowers it")


def test_the_table_adds_up(taught, place):
    found = told(taught(), place.workspace)
    lines = table(found).splitlines()
    assert (
        lines[1] == f"on each of {place.workspace.mesh.size} devices, while a step runs"
    )
    assert any(line.startswith("in all") for line in lines)
    shown = [line for line in lines if "of which" in line]
    assert len(shown) == len(found.within) >= 2
    assert max(map(len, lines)) < 100


def test_a_run_that_does_not_fit_says_what_would(taught, place, monkeypatch):
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nmore")

    monkeypatch.setattr(kd.run.fit, "train", full)
    alone = taught(objective=1.0 * CrossEntropy(), teachers=())
    with pytest.raises(UserError) as raised:
        run.run(alone, "one", place.workspace)
    message = str(raised.value)
    assert re.fullmatch(
        r"out of memory \(RESOURCE_EXHAUSTED: 9 GiB\); a step takes [\d.]+ \w+ on each "
        r"device, largest: .* lowers it; make memory NAME=\.\.\. tells all of it",
        message,
    )
    # Where that cannot be told, the error is what it was.
    monkeypatch.setattr(kd.run.fit, "requirements", full)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        run.run(alone, "two", place.workspace)


def notices(said):
    return [line for line in said if "logits" in line and "predictions x" in line]


def test_a_run_says_once_how_logits_are_made(language, place, monkeypatch):
    workspace, said = place
    few = "256 predictions x 273 classes: logits are computed 64 rows at a time"
    run.run(language, "small", workspace)
    assert notices(said) == []
    monkeypatch.setattr(
        kd.objective.mix, "large", lambda head: head.kernel.shape[0] < 9
    )
    monkeypatch.setattr(kd.objective.mix, "rows_at_once", lambda num_classes: 64)
    workspace = dataclasses.replace(workspace, shared=Shared())
    run.run(language, "large", workspace)
    assert notices(said) == [few]
    # Another seed is of the same program.
    run.run(dataclasses.replace(language, seed=1), "large", workspace)
    assert notices(said) == [few, few]
    found = told(language, dataclasses.replace(workspace, shared=Shared()))
    assert [one.at_once for one in found.logits] == [64]
    (logits,) = (x for x in found.within if x.name == "logits of the student")
    assert logits.num_bytes == 4 * 64 * 273 and "64 rows at a time" in logits.note
    assert few in table(found)


def test_what_a_step_reads_kept_answers_by_is_told(language, place):
    def of(keep):
        kept = dataclasses.replace(language, answers="cached", keep=keep)
        return {one.name: one for one in told(kept, place.workspace, False).device}

    head = "head of the kept answers"
    teacher = language.teachers[0].recipe.student
    assert of(HiddenAndHead())[head].num_bytes == 4 * teacher.width * 273
    assert head not in of(TopK(k=8)) and head not in of(Dense())


def test_it_says_which_loss_needs_all_logits(language, place, monkeypatch):
    monkeypatch.setattr(kd.objective.mix, "large", lambda head: True)
    coupled = dataclasses.replace(
        language, objective=language.objective + PerToken(SinKD(cost=Cosine()))
    )
    found = told(coupled, place.workspace, False)
    assert r.notices(found.logits) == [
        "sinkd needs the logits of all rows: 256 predictions x 273 classes, 273 KiB "
        "for each network"
    ]
    apart = dataclasses.replace(language, term_gradients="watched")
    (line,) = r.notices(told(apart, place.workspace, False).logits)
    assert line.startswith("term_gradients needs the logits of all rows: ")


def test_networks_in_places_are_told_without_their_weights(taught, place):
    """As teacher and as start; the sizes in config.json are enough."""
    workspace, _ = place
    experiment = taught()
    recipe = experiment.teachers[0].recipe
    assert recipe is not None
    run.run(recipe, "teacher", workspace)
    model = workspace.runs / "teacher/0/model"
    (model / "model.safetensors").unlink()
    there = dataclasses.replace(experiment, teachers=(Network(place=str(model)),))
    expected = told(experiment, workspace, False)
    assert told(there, workspace, False).device == expected.device
    begun = dataclasses.replace(
        experiment, teachers=(), objective=1.0 * CrossEntropy(), student=None,
        start=Network(place=str(model)),
    )  # fmt: skip
    found = told(begun, workspace, False)
    assert found.of(r.PARAMETERS) == expected.of(r.TEACHERS)
