"""The step of offline distillation, on a network small enough to see through."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from procedures.linear import linear, make_batch, with_hidden_labels

from kd.data.sample import Sample
from kd.divergences import (
    ATKD,
    DKD,
    JS,
    KL,
    ComparativeKL,
    ReverseKL,
    SinKD,
    TotalVariation,
    annealing,
    continuation,
)
from kd.features import RKDDistance
from kd.objective import CrossEntropy, Loss, SquaredError
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.train.optimizer import AdamW
from kd.train.pruning import Pruning
from kd.types import Model, Outputs


def offline(student, teacher, objective, optimizer, **options):
    learners = {"student": student}
    return Offline().build(
        Setting(learners, (teacher,), objective, optimizer, **options)
    )


def start(objective, model=None, optimizer=None, **options):
    model = model or linear()
    batch = make_batch()
    teacher_params = (linear().init(jax.random.key(9), batch),)
    procedure = offline(
        model, linear(), objective, optimizer or optax.sgd(1.0), **options
    )
    student_params = {"student": model.init(jax.random.key(1), batch)}
    state = procedure.init(jax.random.key(2), student_params, teacher_params, batch)
    return procedure, state, teacher_params, batch


POINTWISE = 0.1 * CrossEntropy() + 0.9 * KL(2.0) + 0.3 * JS() + 0.2 * TotalVariation()
MIXED = POINTWISE + 0.5 * ReverseKL() + 0.8 * SinKD()


@pytest.mark.slow
def test_one_step_of_sgd_is_that_of_the_formula():
    procedure, state, teacher_params, batch = start(MIXED)
    before = jax.device_get(state.params["student"]["w"])

    inputs, labels = (batch[name][batch["mask"]] for name in ("inputs", "labels"))

    def formula(w):
        s, t = inputs @ w, inputs @ teacher_params[0]["w"]
        return (
            0.1 * CrossEntropy()(s, labels).mean()
            + 0.9 * KL(2.0)(s, t).mean()
            + 0.3 * JS()(s, t).mean()
            + 0.2 * TotalVariation()(s, t).mean()
            + 0.5 * ReverseKL()(s, t).mean()
            + 0.8 * SinKD()(s, t).mean()
        )

    value, gradient = jax.jit(jax.value_and_grad(formula))(before)
    after, metrics = procedure.step(state, teacher_params, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        after.params["student"]["w"], before - gradient, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        metrics["grad_norm"], jnp.linalg.norm(gradient), rtol=1e-5
    )
    names = {"ce", "kl", "js", "tvd", "rkl", "sinkd"}
    of_plan = {name for name in metrics if name.startswith("sinkd/")}
    assert "sinkd/marginal_error" in of_plan
    expected = {"loss", "grad_norm"} | {f"loss/{name}" for name in names} | of_plan
    assert set(metrics) == expected
    assert after.step == 1


@pytest.mark.parametrize("num_microbatches", [2, 3, 4, 12])
def test_microbatches_give_the_gradient_of_the_whole_batch(num_microbatches):
    whole, state, teacher_params, batch = start(POINTWISE)
    expected, expected_metrics = whole.step(state, teacher_params, batch)
    # 12 parts of one row: the masked ones are empty.
    parts, state, _, _ = start(POINTWISE, num_microbatches=num_microbatches)
    found, metrics = parts.step(state, teacher_params, batch)
    np.testing.assert_allclose(
        found.params["student"]["w"], expected.params["student"]["w"],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_microbatches_of_a_coupled_loss_see_only_their_part():
    objective = 1.0 * SinKD()
    whole, state, teacher_params, batch = start(objective)
    _, expected = whole.step(state, teacher_params, batch)
    parts, state, _, _ = start(objective, num_microbatches=2)
    _, metrics = parts.step(state, teacher_params, batch)
    assert abs(metrics["loss"] - expected["loss"]) > 1e-3


def test_cached_logits_give_the_losses_of_the_live_teacher():
    procedure, state, teacher_params, batch = start(MIXED)
    live, live_metrics = procedure.step(state, teacher_params, batch)
    logits = linear().apply(teacher_params[0], batch, None).logits
    procedure, state, _, _ = start(MIXED)
    cached, cached_metrics = procedure.step(
        state, None, batch | {"teacher_logits": logits}
    )
    for name, value in live_metrics.items():
        np.testing.assert_allclose(cached_metrics[name], value, rtol=1e-5)
    np.testing.assert_allclose(
        cached.params["student"]["w"], live.params["student"]["w"], rtol=1e-5, atol=1e-7
    )


HIDDEN = [0, 3, 4, 6, 9]


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [1, 2, 3, 12])
def test_terms_on_labels_are_means_over_the_labelled(num_microbatches):
    objective = 0.1 * CrossEntropy() + 0.9 * KL(2.0) + 0.2 * DKD()
    procedure, state, teacher_params, batch = start(
        objective, num_microbatches=num_microbatches
    )
    before = jax.device_get(state.params["student"]["w"])
    keeps, hidden = with_hidden_labels(batch, HIDDEN)
    assert keeps.sum() == 5

    def formula(w):
        s, t = batch["inputs"] @ w, batch["inputs"] @ teacher_params[0]["w"]
        few = (x[keeps] for x in (s, t, batch["labels"]))
        ours, theirs, labels = few
        ce = CrossEntropy()(ours, labels).mean()
        dkd = DKD()(ours, theirs, labels).mean()
        kl = KL(2.0)(s[batch["mask"]], t[batch["mask"]]).mean()
        return 0.1 * ce + 0.9 * kl + 0.2 * dkd, (ce, dkd)

    (value, parts), gradient = jax.value_and_grad(formula, has_aux=True)(before)
    after, metrics = procedure.step(state, teacher_params, hidden)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        [metrics["loss/ce"], metrics["loss/dkd"]], parts, rtol=1e-5
    )
    np.testing.assert_allclose(
        before - after.params["student"]["w"], gradient, rtol=1e-4, atol=1e-6
    )


def known_of(batch, hidden, unasked):
    """The batch as the sample gives it, with NaN for what the teacher was not asked."""
    rows = np.arange(len(batch["mask"]))
    labelled, answered = ~np.isin(rows, hidden), ~np.isin(rows, unasked)
    sample = Sample(rows, np.asarray(batch["labels"]), labelled, answered, 0)
    logits = linear().apply(linear().init(jax.random.key(9), batch), batch, None).logits
    logits = jnp.where(answered[:, None], logits, jnp.nan)
    known = sample.of_batch(rows, np.asarray(batch["mask"]))
    known = {name: jnp.asarray(values) for name, values in known.items()}
    keeps = np.asarray(batch["mask"])
    return labelled & keeps, answered & keeps, batch | known | {
        "teacher_logits": logits,
        "labels": jnp.where(labelled, batch["labels"], -1),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [1, 2, 3, 12])
@pytest.mark.parametrize("hidden", [[], HIDDEN])
def test_terms_on_a_teacher_are_means_over_what_it_was_asked(num_microbatches, hidden):
    objective = 0.1 * CrossEntropy() + 0.9 * KL(2.0) + 0.2 * DKD()
    procedure, state, _, batch = start(objective, num_microbatches=num_microbatches)
    before = jax.device_get(state.params["student"]["w"])
    labelled, answered, batch = known_of(batch, hidden, unasked=[1, 3, 4, 7])
    assert answered.sum() == 6

    def formula(w):
        s, t, y = batch["inputs"] @ w, batch["teacher_logits"], batch["labels"]
        both = labelled & answered
        ce = CrossEntropy()(s[labelled], y[labelled]).mean()
        kl = KL(2.0)(s[answered], t[answered]).mean()
        dkd = DKD()(s[both], t[both], y[both]).mean()
        return 0.1 * ce + 0.9 * kl + 0.2 * dkd, (ce, kl, dkd)

    (value, parts), gradient = jax.value_and_grad(formula, has_aux=True)(before)
    after, metrics = procedure.step(state, (None,), batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    found = [metrics[f"loss/{name}"] for name in ("ce", "kl", "dkd")]
    np.testing.assert_allclose(found, parts, rtol=1e-5)
    np.testing.assert_allclose(
        before - after.params["student"]["w"], gradient, rtol=1e-4, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", [ComparativeKL(), SinKD(), KL()])
def test_losses_of_a_teacher_see_what_it_was_asked_only(loss):
    procedure, state, _, batch = start(1.0 * loss)
    before = jax.device_get(state.params["student"]["w"])
    _, answered, batch = known_of(batch, [], unasked=[0, 2, 5, 8])

    def formula(w):
        s, t = batch["inputs"] @ w, batch["teacher_logits"]
        return loss(s[answered], t[answered]).mean()

    value, gradient = jax.value_and_grad(formula)(before)
    after, metrics = procedure.step(state, (None,), batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        before - after.params["student"]["w"], gradient, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("loss", [ComparativeKL(), SinKD(), KL()])
def test_a_batch_that_no_teacher_was_asked_about_teaches_by_labels(loss):
    both, state, _, batch = start(CrossEntropy() + loss)
    _, _, unasked = known_of(batch, [], unasked=range(12))
    found, metrics = both.step(state, (None,), unasked)
    assert metrics[f"loss/{loss.name}"] == 0
    alone, state, _, batch = start(1.0 * CrossEntropy())
    expected, _ = alone.step(state, (None,), batch)
    np.testing.assert_allclose(
        found.params["student"]["w"], expected.params["student"]["w"], rtol=1e-6
    )


@pytest.mark.slow
def test_a_loss_of_labels_that_couples_the_batch_sees_the_labelled_only():
    procedure, state, teacher_params, batch = start(1.0 * ATKD())
    before = jax.device_get(state.params["student"]["w"])
    keeps, hidden = with_hidden_labels(batch, HIDDEN)

    def formula(w):
        inputs = batch["inputs"][keeps]
        theirs = inputs @ teacher_params[0]["w"]
        return ATKD()(inputs @ w, theirs, batch["labels"][keeps]).mean()

    value, gradient = jax.value_and_grad(formula)(before)
    after, metrics = procedure.step(state, teacher_params, hidden)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        before - after.params["student"]["w"], gradient, rtol=1e-4, atol=1e-6
    )


def test_a_batch_without_labels_teaches_by_the_teacher_alone():
    both, state, teacher_params, batch = start(CrossEntropy() + KL())
    _, hidden = with_hidden_labels(batch, range(12))
    found, metrics = both.step(state, teacher_params, hidden)
    assert metrics["loss/ce"] == 0
    alone, state, _, _ = start(1.0 * KL())
    expected, _ = alone.step(state, teacher_params, batch)
    np.testing.assert_allclose(
        found.params["student"]["w"], expected.params["student"]["w"], rtol=1e-6
    )


def test_a_number_that_is_hidden():
    batch = make_batch()
    batch["labels"] = jnp.float32(batch["labels"])
    keeps, hidden = with_hidden_labels(batch, HIDDEN, missing=jnp.nan)

    def mean(outputs, batch):
        mix = 1.0 * SquaredError()
        params = {"squared_error": ()}
        return mix.apply(params, Outputs(outputs), None, batch, jnp.int32(0))[0]

    outputs = batch["inputs"][:, :1]
    value, gradient = jax.value_and_grad(mean)(outputs, hidden)
    gaps = (outputs[:, 0] - batch["labels"])[keeps]
    np.testing.assert_allclose(value, jnp.square(gaps).mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient[keeps, 0], 2 * gaps / 5, rtol=1e-5)
    assert not gradient[~keeps].any()


def test_whoever_reads_a_hidden_label_unseen_gets_nan():
    @dataclasses.dataclass(frozen=True)
    class Unaware(CrossEntropy):
        @property
        def reads_labels(self):
            return False

    procedure, state, teacher_params, batch = start(1.0 * Unaware())
    _, hidden = with_hidden_labels(batch, HIDDEN)
    _, metrics = procedure.step(state, teacher_params, hidden)
    assert np.isnan(metrics["loss"])


def test_dropout_differs_by_step_and_not_by_run():
    def losses():
        # A learning rate of 0, so that dropout is all that changes.
        procedure, state, teacher_params, batch = start(
            MIXED, model=linear(rate=0.5), optimizer=optax.sgd(0.0)
        )
        found = []
        for _ in range(3):
            state, metrics = procedure.step(state, teacher_params, batch)
            found.append(float(metrics["loss"]))
        return found

    first = losses()
    assert len(set(first)) == 3
    assert losses() == first


def test_teacher_is_not_asked_where_no_loss_needs_it():
    procedure, state, _, batch = start(1.0 * CrossEntropy())
    _, metrics = procedure.step(state, None, batch)
    assert np.isfinite(metrics["loss"])


def test_teacher_runs_where_more_than_its_cached_logits_is_read():
    objective = 1.0 * KL() + 1.0 * RKDDistance()
    procedure, state, teacher_params, batch = start(objective)
    logits = 0 * linear().apply(teacher_params[0], batch, None).logits
    batch = batch | {"teacher_logits": logits}
    _, metrics = procedure.step(state, teacher_params, batch)
    live, state, _, _ = start(objective)
    _, expected = live.step(state, teacher_params, make_batch())
    assert metrics["loss/kl"] == expected["loss/kl"] > 0  # not of the zeros
    absent = offline(linear(), None, objective, optax.sgd(1.0))
    with pytest.raises(ValueError, match="none to give its hidden states"):
        absent.init(jax.random.key(0), state.params, None, batch)


def test_missing_teacher_is_refused():
    procedure = offline(linear(), None, 1.0 * KL(), optax.sgd(1.0))
    batch = make_batch()
    params = linear().init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="needs a teacher"):
        procedure.init(jax.random.key(0), {"student": params}, None, batch)


@dataclasses.dataclass(frozen=True)
class Projected(Loss):
    """Squared distance of projected hidden states: a loss that learns itself."""

    name = "projected"

    def init(self, key, student, teacher):
        return {"w": jax.random.normal(key, (student.hidden[0].shape[1], 3))}

    def per_example(self, params, student, teacher, batch):
        gaps = student.hidden[0] @ params["w"] - teacher.logits
        return jnp.where(batch["mask"], jnp.square(gaps).sum(axis=1), 0)


@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_gradients_of_terms_are_watched_without_a_change(num_microbatches):
    options = {"num_microbatches": num_microbatches}
    plain, state, teacher_params, batch = start(POINTWISE, **options)
    before = jax.device_get(state.params["student"]["w"])
    expected, _ = plain.step(state, teacher_params, batch)
    watched, state, _, _ = start(POINTWISE, **options, term_gradients="watched")
    found, metrics = watched.step(state, teacher_params, batch)
    np.testing.assert_allclose(
        found.params["student"]["w"], expected.params["student"]["w"], rtol=1e-5,
        atol=1e-6,
    )  # fmt: skip

    def alone(loss, weight):
        procedure, state, _, _ = start(weight * loss)
        after, _ = procedure.step(state, teacher_params, batch)
        return before - jax.device_get(after.params["student"]["w"])

    ce, kl = alone(CrossEntropy(), 0.1), alone(KL(2.0), 0.9)
    sizes = np.linalg.norm(ce), np.linalg.norm(kl)
    np.testing.assert_allclose(
        [metrics["gradient/ce"], metrics["gradient/kl"]], sizes, rtol=1e-4
    )
    cosine = np.sum(ce * kl) / np.prod(sizes)
    np.testing.assert_allclose(metrics["cosine/ce/kl"], cosine, rtol=1e-4)
    assert sum(name.startswith("cosine/") for name in metrics) == 6


def test_balanced_terms_pull_by_their_weights():
    ce, kl = 0.25 * CrossEntropy(), -0.5 * KL(2.0)
    options = {"term_gradients": "balanced"}
    both, state, teacher_params, batch = start(ce + kl, **options)
    before = jax.device_get(state.params["student"]["w"])
    after, metrics = both.step(state, teacher_params, batch)

    def alone(mix):
        procedure, state, _, _ = start(mix)
        after, _ = procedure.step(state, teacher_params, batch)
        return before - jax.device_get(after.params["student"]["w"])

    ours, theirs = alone(ce), alone(kl)
    sizes = np.linalg.norm(ours), np.linalg.norm(theirs)
    expected = sum(sizes) * (ours / sizes[0] + 2 * theirs / sizes[1]) / 3
    np.testing.assert_allclose(
        before - after.params["student"]["w"], expected, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        metrics["grad_norm"], np.linalg.norm(expected), rtol=1e-4
    )


def test_what_the_objective_learns_is_not_balanced():
    objective = 1.0 * CrossEntropy() + 5.0 * Projected()
    plain, state, teacher_params, batch = start(objective)
    expected, _ = plain.step(state, teacher_params, batch)
    balanced, state, _, _ = start(objective, term_gradients="balanced")
    # Inputs, which the projection reads, are no function of the student.
    found, metrics = balanced.step(state, teacher_params, batch)
    for ours, theirs in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert metrics["gradient/projected"] == metrics["cosine/ce/projected"] == 0


def test_parameters_of_the_objective_learn_too():
    procedure, state, teacher_params, batch = start(
        1.0 * CrossEntropy() + 1.0 * Projected(), optimizer=optax.sgd(0.05)
    )
    losses = []
    for _ in range(30):
        state, metrics = procedure.step(state, teacher_params, batch)
        losses.append(float(metrics["loss/projected"]))
    assert losses[-1] < 0.05 * losses[0]


def test_weights_may_be_schedules_of_the_step():
    objective = optax.linear_schedule(1.0, 0.0, 2) * CrossEntropy()
    procedure, state, _, batch = start(objective, optimizer=optax.sgd(0.0))
    found = []
    for _ in range(3):
        state, metrics = procedure.step(state, None, batch)
        found.append(metrics["loss"] / metrics["loss/ce"])
    np.testing.assert_allclose(found, [1.0, 0.5, 0.0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [continuation(8), annealing(8, num_levels=4), CrossEntropy() + ComparativeKL()],
    ids=["continuation", "annealing", "comparative"],
)
def test_one_and_four_devices_give_the_same(objective):
    """What follows the step, and a student that is pruned meanwhile."""
    pruning = Pruning(share=0.5, begin=0.0, end=1.0, every=1)
    optimizer = AdamW(learning_rate=1e-2, pruning=pruning).build(8)
    model = Model(
        lambda key, batch: {"kernel": linear().init(key, batch)["w"]},
        lambda params, batch, key: linear().apply({"w": params["kernel"]}, batch, key),
    )
    found = []
    for number in (1, 4):
        mesh = data_mesh(jax.devices()[:number])
        procedure, state, teacher_params, batch = start(
            objective, model, optimizer, mesh=mesh
        )
        state, teacher_params = replicate(state, mesh), replicate(teacher_params, mesh)
        batch, rows = shard_batch(batch, mesh), []
        for _ in range(8):
            state, metrics = procedure.step(state, teacher_params, batch)
            rows.append(sorted((k, float(v)) for k, v in metrics.items()))
        found.append(rows)
    for ours, theirs in zip(*found, strict=True):
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        np.testing.assert_allclose(
            [value for _, value in ours], [value for _, value in theirs],
            rtol=1e-5, atol=1e-7,
        )  # fmt: skip
    assert dict(ours)["sparsity"] == pytest.approx(0.5, abs=0.05)
