"""One expert for each example and step, on networks small enough to see through."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from points import experiment_on, whole_and_resumed, write_table
from procedures.linear import linear, make_batch

from kd import config, run
from kd.data.sample import Sample, Sampled
from kd.divergences import KL, SinKD
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.evaluate.number import Number
from kd.experiment import Network
from kd.features import RKDDistance
from kd.models.mlp import MLP
from kd.objective import CrossEntropy, SquaredError
from kd.procedures.curriculum import Curriculum
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train import metrics_log
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW
from kd.views.view import View

NUM_STEPS = 12
STRATA = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0, 0], np.int32)
KD = 0.5 * CrossEntropy() + 1.0 * KL(2.0)


def three_experts(num_experts=3):
    """A batch with the answers of experts, and the strata of its examples."""
    batch = make_batch()
    for k in range(num_experts):
        params = linear().init(jax.random.key(50 + k), batch)
        name = f"teacher_logits_{k}" if k else "teacher_logits"
        batch[name] = batch["inputs"] @ params["w"]
    return batch | {"stratum": jnp.asarray(np.minimum(STRATA, num_experts - 1))}


def built(procedure, objective, optimizer, *, num_experts=3, rate=0.0, **options):
    setting = Setting(
        {"student": linear(rate)}, (None,) * num_experts, objective, optimizer,
        num_steps=NUM_STEPS, **options,
    )  # fmt: skip
    training = procedure.build(setting)
    batch = three_experts(num_experts)
    first = {"student": linear().init(jax.random.key(1), batch)}
    state = training.init(jax.random.key(2), first, None, batch)
    return training, state, batch


def taught(pacing, step):
    """Of each example the expert, from the definition."""
    return np.minimum(STRATA, np.floor(3 * np.float32(pacing(step))).astype(int))


@pytest.mark.parametrize(
    ("pacing", "definition"),
    [
        (0.5, lambda step: min(step / 6, 1)),
        (1.0, lambda step: step / 12),
        (lambda step: jnp.where(step < 4, 0.4, 1.0), lambda s: 0.4 if s < 4 else 1.0),
    ],
)
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_each_example_is_taught_by_one_expert(pacing, definition, num_microbatches):
    training, state, batch = built(
        Curriculum(pacing=pacing), 1.0 * KL(), optax.sgd(0.0),
        num_microbatches=num_microbatches,
    )  # fmt: skip
    student = batch["inputs"] @ state.params["student"]["w"]
    names = ("teacher_logits", "teacher_logits_1", "teacher_logits_2")
    losses = np.stack([KL()(student, batch[name]) for name in names])
    before = np.zeros(12, int)
    for step in range(NUM_STEPS):
        state, metrics = training.step(state, None, batch)
        experts = taught(definition, step)
        expected = losses[experts, np.arange(12)][:10].mean()
        np.testing.assert_allclose(metrics["loss/kl"], expected, rtol=1e-5)
        shares = [float(metrics[f"expert/{k}"]) for k in (1, 2, 3)]
        np.testing.assert_allclose(
            shares, np.bincount(experts[:10], minlength=3) / 10, atol=1e-6
        )
        assert np.all(experts >= before)
        before = experts
    np.testing.assert_array_equal(before, STRATA)


@pytest.mark.parametrize("objective", [KD, KD + 0.8 * SinKD()], ids=["kd", "sinkd"])
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_a_curriculum_of_one_expert_is_kd_bit_for_bit(objective, num_microbatches):
    optimizer = AdamW(learning_rate=1e-2, weight_decay=0.1).build(NUM_STEPS)
    options = {"num_experts": 1, "rate": 0.3, "num_microbatches": num_microbatches}
    ours, state, batch = built(Curriculum(), objective, optimizer, **options)
    theirs, other, _ = built(Offline(), objective, optimizer, **options)
    del batch["stratum"]
    for _ in range(5):
        state, metrics = ours.step(
            state, None, batch | {"stratum": jnp.zeros(12, jnp.int32)}
        )
        other, expected = theirs.step(other, None, batch)
        assert metrics["expert/1"] == 1
        for name, value in expected.items():
            assert metrics[name] == value, name
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def sample_of(labels, kept=None):
    everything = Sampled().sample(np.asarray(labels, np.int32), Classes(("a", "b")))
    if kept is None:
        return everything
    return dataclasses.replace(everything, kept=np.asarray(kept))


def strata(sample: Sample, *logits, **settings):
    answers = [np.asarray(x, np.float32) for x in logits]
    return Curriculum(**settings).annotate(sample, answers)["stratum"].tolist()


# Label 0 everywhere: the first logit is how sure of it a network is.
SURE = np.array([[5, 0], [1, 0], [3, 0], [-2, 0], [-9, 0], [0, 0]])


def test_strata_are_equal_parts_of_the_examples_by_difficulty():
    other = SURE[::-1]
    sample = sample_of([0] * 6)
    assert strata(sample, SURE, other, other) == [0, 1, 0, 2, 2, 1]
    assert strata(sample, SURE, other) == [0, 0, 0, 1, 1, 1]
    assert strata(sample, other, SURE, scorer=-1) == [0, 0, 0, 1, 1, 1]
    assert strata(sample, SURE) == [0] * 6
    # By its margin the example that is surely wrong is an easy one.
    assert strata(sample, SURE, other, other, difficulty="margin") == [0, 2, 1, 1, 0, 2]
    # The label that the student sees decides.
    assert strata(sample_of([1] * 6), SURE, other) == [1, 1, 1, 0, 0, 0]


def test_strata_are_of_the_examples_that_are_learnt_from():
    other = SURE[::-1]
    # Of examples 0, 2 and 5 the last is the most difficult.
    assert strata(sample_of([0] * 6, kept=[0, 2, 5]), SURE, other, other) == [
        0, 0, 1, 0, 0, 2,
    ]  # fmt: skip
    few = sample_of([0] * 6)
    few.answered[[1, 3, 4]] = False
    nan = np.where(few.answered[:, None], SURE, np.nan)
    assert strata(few, nan, nan, nan) == [0, 0, 1, 0, 0, 2]
    with pytest.raises(UserError, match="3 experts and 2 examples to learn from"):
        strata(sample_of([0] * 6, kept=[0, 2]), SURE, other, other)


def test_equal_examples_keep_their_order():
    random = np.random.default_rng(0)
    logits = random.integers(0, 2, (101, 2))
    labels = random.integers(0, 2, 101)
    found = strata(sample_of(labels), logits, logits, logits)
    assert found == strata(sample_of(labels), logits, logits, logits)
    assert sorted(np.bincount(found)) == [33, 34, 34]
    easy = (logits[np.arange(101), labels] == 1) & (logits.min(axis=1) == 0)
    first = np.flatnonzero(easy)
    assert np.all(np.diff(np.asarray(found)[first]) >= 0)


@pytest.mark.parametrize(
    ("pacing", "message"),
    [
        (lambda step: jnp.minimum(step / 20, 1.0),
         r"reaches 0\.55 in the 12 steps of this run, so that expert 3 of 3 never "
         r"teaches; it must reach 0\.666667"),
        (lambda step: jnp.float32(0), "expert 2 of 3 never"),
        (lambda step: step / 3, r"pacing is 1\.33333 at step 4; it must lie in \[0, 1"),
        (lambda step: step / 0.0, "pacing is nan at step 0"),
        (lambda step: 1 - step / 12, "pacing falls after step 0"),
    ],
)  # fmt: skip
def test_a_pacing_that_is_none_is_refused_before_the_first_step(pacing, message):
    with pytest.raises(UserError, match=message):
        built(Curriculum(pacing=pacing), KD, optax.sgd(0.1))


@pytest.mark.parametrize("pacing", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_the_run_is_one(pacing):
    with pytest.raises(ValueError, match="share of the run until every expert has"):
        Curriculum(pacing=pacing)


THREE = Classes(("low", "mid", "high"))


def on_points(directory, target=THREE, **fields):
    settings = {
        "objective": KD, "procedure": Curriculum(),
        "teachers": (Network(place="a"), Network(place="b")),
    } | fields  # fmt: skip
    return experiment_on(directory, target, settings.pop("objective"), **settings)


class Same(View):
    changes_answers = True

    def __call__(self, key, batch, ask=None):
        return batch


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teachers": ()}, "the objective needs a teacher and there is none"),
        ({"objective": 1.0 * CrossEntropy()}, "no term of the objective learns from a"),
        ({"procedure": Curriculum(scorer=2)}, "scorer=2 is none of the 2 experts"),
        ({"procedure": Curriculum(scorer=-3)}, "they are 0 to 1"),
        ({"answers": "live"}, "answers must be cached"),
        ({"objective": KD + RKDDistance()}, "rkd_distance reads hidden states"),
        ({"view": Same()}, "a curriculum takes no view"),
        ({"target": Number(0.0, 1.0), "objective": 1.0 * SquaredError()},
         "points asks for a number, and difficulty is of the prediction"),
    ],
)  # fmt: skip
def test_what_no_curriculum_can_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        on_points("", **fields)


def test_experts_of_other_labels_are_refused():
    """All of them, whoever is the one that differs, before anything is trained."""
    ours = experiment_on("", THREE, 1.0 * CrossEntropy())
    theirs = experiment_on("", Classes(("low", "high")), 1.0 * CrossEntropy())
    experts = [Network(recipe=recipe) for recipe in (ours, theirs)]
    for i, several in ((1, experts), (0, experts[::-1])):
        with pytest.raises(
            ValueError,
            match=rf"teachers\.{i} has other outputs \(low, high\) than the task "
            r"\(low, mid, high\), and kl compares logits",
        ):
            on_points("", teachers=tuple(several))


def test_hidden_labels_have_a_margin_and_no_loss():
    with pytest.raises(UserError, match="difficulty=loss reads the label of every"):
        config.override(on_points(""), "data.unlabelled=0.5")
    changed = config.override(
        on_points(""), "data.unlabelled=0.5", "procedure.difficulty=margin",
        "procedure.pacing=0.25", "procedure.scorer=-1",
    )  # fmt: skip
    assert changed.procedure == Curriculum(pacing=0.25, difficulty="margin", scorer=-1)


@pytest.mark.slow
def test_a_run_of_three_experts_that_are_cached(place, tmp_path):
    write_table(
        tmp_path / "data",
        lambda x, y: "high" if y > x + 0.5 else "mid" if y > x - 0.5 else "low",
    )
    recipe = experiment_on(tmp_path / "data", THREE, 1.0 * CrossEntropy())
    experts = tuple(
        Network(
            recipe=dataclasses.replace(recipe, student=MLP(widths=(n,)), num_steps=s)
        )
        for n, s in ((2, 10), (6, 20), (16, 40))
    )
    experiment = dataclasses.replace(
        recipe, teachers=experts, objective=KD, procedure=Curriculum(pacing=1.0)
    )
    summary, _ = whole_and_resumed(experiment, place)
    assert summary["student"]["accuracy"] > 0.5
    workspace, said = place
    assert len([*workspace.runs.glob("networks/answers/*.npy")]) == 3
    assert not any("runs in every step" in line for line in said)
    rows = metrics_log.read(workspace.runs / "whole/0/metrics.jsonl")
    rows = [row for row in rows if row["split"] == "train"]
    shares = np.array([[row[f"expert/{k}"] for k in (1, 2, 3)] for row in rows])
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    # g reaches 1/3 at step 20/3, 2/3 at step 40/3.
    assert np.all(shares[:7, 0] == 1) and np.all(shares[:14, 2] == 0)
    assert np.all(shares[7:14, 1] > 0)
    np.testing.assert_allclose(shares[14:].mean(axis=0), 1 / 3, atol=0.1)
    one = dataclasses.replace(workspace, mesh=data_mesh(jax.devices()[:1]))
    run.run(experiment, "one", one)
    ours = metrics_log.read(workspace.runs / "one/0/metrics.jsonl")
    ours = [row for row in ours if row["split"] == "train"]
    for row, expected in zip(ours, rows, strict=True):
        np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-4)

    early = dataclasses.replace(experiment, num_steps=2)
    with pytest.raises(UserError, match="so that expert 3 of 3 never teaches"):
        run.run(early, "early", workspace)
    assert not (workspace.runs / "early/0/metrics.jsonl").exists()
