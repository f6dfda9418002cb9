"""Views in the step of offline distillation, on networks to see through."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.divergences import ATKD, DKD, KL, RankCorrelation, SinKD, ValueCorrelation
from kd.features import EmbeddingCompression
from kd.objective import CrossEntropy, SquaredError
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.types import Model, Outputs
from kd.views import Beside, Composed, Crop, CutMix, Flip, Mixup, Pick
from kd.views.mixing import Mixing

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def linear(rate=0.0, num=3):
    """Logits linear in the pixels, with dropout on these."""

    def init(key, batch):
        return {"w": 0.3 * jax.random.normal(key, (batch["inputs"][0].size, num))}

    def apply(params, batch, key):
        pixels = batch["inputs"].reshape(len(batch["inputs"]), -1)
        if key is not None and rate:
            keep = jax.random.bernoulli(key, 1 - rate, pixels.shape)
            pixels = jnp.where(keep, pixels / (1 - rate), 0)
        return Outputs(logits=pixels @ params["w"], hidden=(pixels,))

    return Model(init, apply)


def make_batch(rows=12, masked=2):
    random = np.random.default_rng(0)
    return {
        "inputs": jnp.float32(random.normal(size=(rows, 4, 4, 1))),
        "labels": jnp.int32(random.integers(0, 3, rows)),
        "mask": jnp.arange(rows) < rows - masked,
    }


def start(objective, view=None, *, model=None, teacher=None, optimizer=None, **options):
    """The compiled step, where it starts, the teacher's parameters and a batch."""
    model, teacher, batch = model or linear(), teacher or linear(), make_batch()
    setting = Setting(
        {"student": model}, (teacher,), objective, optimizer or optax.sgd(1.0),
        view=view, **options,
    )  # fmt: skip
    training = Offline().build(setting)
    teacher_params = (teacher.init(jax.random.key(9), batch),)
    params = {"student": model.init(jax.random.key(1), batch)}
    state = training.init(jax.random.key(2), params, teacher_params, batch)
    return training.step, state, teacher_params, batch


def weights_of(state):
    return np.asarray(jax.device_get(state.params["student"]["w"]))


@dataclasses.dataclass(frozen=True)
class Fixed(Mixing):
    """Example i by 0.7 with example i + 1, the last unmasked one with the first."""

    def problem_of(self, experiment):
        return ""

    def mixture(self, key, share, other, batch):
        raise NotImplementedError

    def __call__(self, key, batch, ask=None):
        other = following(batch)
        pixels = batch["inputs"]
        own = jnp.full(len(other), 0.7)
        weight = batch.get("label_weight", jnp.ones(len(other)))
        kept = {k: v for k, v in batch.items() if not k.startswith("teacher_logits")}
        return kept | {
            "inputs": 0.7 * pixels + 0.3 * pixels[other],
            "label_weight": own * weight,
            "mixed_labels": batch["labels"][other],
            "mixed_label_weight": (1 - own) * weight[other],
        }


def following(batch):
    num, place = jnp.sum(batch["mask"]), jnp.arange(len(batch["mask"]))
    return jnp.where(place < num, (place + 1) % num, place)


MIXED = 0.4 * CrossEntropy() + 0.9 * KL(2.0) + 0.2 * DKD() + 0.3 * SinKD()


@pytest.mark.slow
@pytest.mark.parametrize("view", [Mixup(0.0), CutMix(0.0)])
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_lambda_of_one_equals_no_view(view, num_microbatches):
    plain, state, teacher_params, batch = start(
        MIXED, num_microbatches=num_microbatches
    )
    expected, expected_metrics = plain(state, teacher_params, batch)
    step, state, _, _ = start(MIXED, view, num_microbatches=num_microbatches)
    found, metrics = step(state, teacher_params, batch)
    np.testing.assert_array_equal(weights_of(found), weights_of(expected))
    assert metrics.keys() == expected_metrics.keys()
    for name, value in expected_metrics.items():
        np.testing.assert_array_equal(metrics[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [1, 2, 12])
def test_losses_of_labels_are_weighted_by_the_shares(num_microbatches):
    objective = 0.4 * CrossEntropy() + 0.9 * KL(2.0) + 0.2 * DKD()
    step, state, teacher_params, batch = start(
        objective, Fixed(), num_microbatches=num_microbatches
    )
    before = weights_of(state)
    other = following(batch)

    def formula(w):
        pixels = 0.7 * batch["inputs"] + 0.3 * batch["inputs"][other]
        pixels = pixels.reshape(12, -1)[:10]
        s, t = pixels @ w, pixels @ teacher_params[0]["w"]
        ours, theirs = batch["labels"][:10], batch["labels"][other[:10]]
        # Of cross-entropy it is that of the mixed labels.
        targets = 0.7 * jax.nn.one_hot(ours, 3) + 0.3 * jax.nn.one_hot(theirs, 3)
        ce = optax.softmax_cross_entropy(s, targets).mean()
        dkd = 0.7 * DKD()(s, t, ours).mean() + 0.3 * DKD()(s, t, theirs).mean()
        return 0.4 * ce + 0.9 * KL(2.0)(s, t).mean() + 0.2 * dkd, (ce, dkd)

    (value, parts), gradient = jax.value_and_grad(formula, has_aux=True)(before)
    found, metrics = step(state, teacher_params, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        [metrics["loss/ce"], metrics["loss/dkd"]], parts, rtol=1e-5
    )
    np.testing.assert_allclose(
        before - weights_of(found), gradient, rtol=1e-4, atol=1e-6
    )


def test_a_number_is_learnt_as_the_mixed_number():
    step, state, _, batch = start(1.0 * SquaredError(), Fixed(), model=linear(num=1))
    targets = jnp.linspace(-1.0, 2.0, 12)
    before, other = weights_of(state), following(batch)

    def formula(w):
        pixels = 0.7 * batch["inputs"] + 0.3 * batch["inputs"][other]
        mixed = 0.7 * targets + 0.3 * targets[other]
        return jnp.square((pixels.reshape(12, -1) @ w)[:10, 0] - mixed[:10]).mean()

    found, _ = step(state, None, batch | {"labels": targets})
    # The losses differ by what no parameter changes.
    np.testing.assert_allclose(
        before - weights_of(found), jax.grad(formula)(before), rtol=1e-4, atol=1e-6
    )


def test_hidden_labels_stay_hidden_when_mixed():
    labelled = jnp.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0], bool)
    step, state, teacher_params, batch = start(CrossEntropy() + KL(), Fixed())
    before, other = weights_of(state), following(batch)
    weight = labelled * 10 / labelled.sum()
    hidden = batch | {
        "labels": jnp.where(labelled, batch["labels"], -1), "label_weight": weight,
    }  # fmt: skip

    def formula(w):
        pixels = 0.7 * batch["inputs"] + 0.3 * batch["inputs"][other]
        pixels = pixels.reshape(12, -1)[:10]
        s, t = pixels @ w, pixels @ teacher_params[0]["w"]
        log_p = jax.nn.log_softmax(s)
        total = 0.0
        for i in range(10):
            for j, share in ((i, 0.7), (int(other[i]), 0.3)):
                if labelled[j]:
                    total -= share * log_p[i, batch["labels"][j]]
        return total / 7 + KL()(s, t).mean()

    value, gradient = jax.value_and_grad(formula)(before)
    found, metrics = step(state, teacher_params, hidden)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        before - weights_of(found), gradient, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "loss",
    [ATKD(), EmbeddingCompression(student_layer=0, teacher_layer=0, width=2)],
    ids=lambda loss: loss.name,
)
def test_losses_that_couple_by_labels_are_finite(loss):
    step, state, teacher_params, batch = start(1.0 * loss, Mixup())
    _, metrics = step(state, teacher_params, batch)
    assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0


@pytest.mark.parametrize("num_microbatches", [1, 4])
def test_beside_is_the_sum_of_both(num_microbatches):
    objective = 0.1 * CrossEntropy() + 0.9 * KL(4.0)
    step, state, teacher_params, batch = start(
        objective, Beside(Fixed(), weight=0.5), num_microbatches=num_microbatches
    )
    before, other = weights_of(state), following(batch)

    def formula(w):
        clean = batch["inputs"]
        viewed = 0.7 * clean + 0.3 * clean[other]
        clean, viewed = (x.reshape(12, -1)[:10] for x in (clean, viewed))
        taught = [KL(4.0)(x @ w, x @ teacher_params[0]["w"]) for x in (clean, viewed)]
        ce = CrossEntropy()(clean @ w, batch["labels"][:10]).mean()
        return 0.1 * ce + 0.9 * taught[0].mean() + 0.45 * taught[1].mean()

    value, gradient = jax.value_and_grad(formula)(before)
    found, metrics = step(state, teacher_params, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        before - weights_of(found), gradient, rtol=1e-4, atol=1e-6
    )
    assert metrics["loss/view/ce"] == 0 < metrics["loss/view/kl"]
    whole = 0.1 * metrics["loss/ce"] + 0.9 * metrics["loss/kl"]
    whole += 0.45 * metrics["loss/view/kl"]
    np.testing.assert_allclose(metrics["loss"], whole, rtol=1e-5)


def test_beside_with_labels_counts_them_by_their_shares():
    view = Beside(Fixed(), labels=True)
    step, state, teacher_params, batch = start(1.0 * CrossEntropy(), view)
    _, metrics = step(state, teacher_params, batch)
    alone, state, _, _ = start(1.0 * CrossEntropy(), Fixed())
    _, expected = alone(state, teacher_params, batch)
    np.testing.assert_allclose(metrics["loss/view/ce"], expected["loss/ce"], rtol=1e-6)
    np.testing.assert_allclose(
        metrics["loss"], metrics["loss/ce"] + expected["loss"], rtol=1e-6
    )


@pytest.mark.slow
def test_beside_without_weight_equals_no_view():
    plain, state, teacher_params, batch = start(MIXED, model=linear(0.5))
    expected, expected_metrics = plain(state, teacher_params, batch)
    view = Beside(Pick(CutMix()), weight=0.0, labels=True)
    step, state, _, _ = start(MIXED, view, model=linear(0.5))
    found, metrics = step(state, teacher_params, batch)
    np.testing.assert_allclose(weights_of(found), weights_of(expected), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], expected_metrics["loss"], rtol=1e-6)
    assert "view/sinkd/marginal_error" in metrics


@pytest.mark.slow
def test_gradients_of_both_are_watched_and_balanced():
    objective = 0.1 * CrossEntropy() + 0.9 * KL(4.0)
    view = Beside(CutMix(), weight=2.0)
    plain, state, teacher_params, batch = start(objective, view)
    expected, _ = plain(state, teacher_params, batch)
    watched, state, _, _ = start(objective, view, term_gradients="watched")
    found, metrics = watched(state, teacher_params, batch)
    np.testing.assert_allclose(
        weights_of(found), weights_of(expected), rtol=1e-5, atol=1e-6
    )
    assert metrics["gradient/view/kl"] > 0 == metrics["gradient/view/ce"]
    assert -1 <= metrics["cosine/kl/view/kl"] <= 1
    balanced, state, _, _ = start(objective, view, term_gradients="balanced")
    before = weights_of(state)
    found, _ = balanced(state, teacher_params, batch)
    assert not np.allclose(before, weights_of(found))


def squared():
    """A teacher whose answer to a mixture is not the mixture of its answers."""

    def apply(params, batch, key):
        return Outputs(logits=linear().apply(params, batch, key).logits ** 2)

    return Model(linear().init, apply)


@pytest.mark.parametrize("answers", ["live", "interpolated"])
def test_the_teacher_is_asked_about_the_view_or_interpolated(answers):
    step, state, teacher_params, batch = start(
        1.0 * KL(), Mixup(answers=answers), teacher=squared()
    )
    batch["teacher_logits"] = squared().apply(teacher_params[0], batch, None).logits
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 2**31 - 1)
    viewed = Mixup(answers="interpolated")(key, batch)
    theirs = viewed["teacher_logits"]
    if answers == "live":
        theirs = squared().apply(teacher_params[0], viewed, None).logits
    ours = viewed["inputs"].reshape(12, -1) @ weights_of(state)
    _, metrics = step(state, teacher_params, batch)
    expected = KL()(ours[:10], theirs[:10]).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["student", "teacher"])
def test_pick_asks_the_networks_of_the_step(by):
    view = Pick(Mixup(), num_views=3, by=by)
    step, state, teacher_params, batch = start(1.0 * KL(), view)
    weights = {"student": weights_of(state), "teacher": teacher_params[0]["w"]}
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 2**31 - 1)

    def ask(whom, batch):
        assert whom == by
        return batch["inputs"].reshape(len(batch["inputs"]), -1) @ weights[whom]

    pixels = view(key, batch, ask)["inputs"].reshape(12, -1)[:10]
    expected = KL()(pixels @ weights["student"], pixels @ weights["teacher"]).mean()
    _, metrics = step(state, teacher_params, batch)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


@pytest.mark.slow
def test_views_differ_by_step_and_not_by_run():
    def losses():
        step, state, teacher_params, batch = start(
            1.0 * KL(), Composed((Flip(), Crop(1), CutMix())), optimizer=optax.sgd(0.0)
        )
        found = []
        for _ in range(3):
            state, metrics = step(state, teacher_params, batch)
            found.append(float(metrics["loss"]))
        return found

    first = losses()
    assert len(set(first)) == 3
    assert losses() == first


@pytest.mark.slow
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_one_and_four_devices_see_the_same(num_microbatches):
    view = Composed((Flip(), Crop(1), Beside(Pick(CutMix(), num_views=2))))
    found = []
    for number in (1, 4):
        mesh = data_mesh(jax.devices()[:number])
        step, state, teacher_params, batch = start(
            0.1 * CrossEntropy() + 0.9 * KL(4.0), view, mesh=mesh,
            optimizer=optax.sgd(0.1), num_microbatches=num_microbatches,
        )  # fmt: skip
        state, teacher_params = replicate(state, mesh), replicate(teacher_params, mesh)
        batch, losses = shard_batch(batch, mesh), []
        for _ in range(4):
            state, metrics = step(state, teacher_params, batch)
            losses.append(float(metrics["loss"]))
        found.append((losses, weights_of(state)))
    (ours, our_weights), (theirs, their_weights) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(our_weights, their_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_views_of_sharded_batches_are_the_same_examples(key):
    """Every view alone: rows go where they go, whatever device has them."""
    batch = make_batch() | {"teacher_logits": jax.random.normal(key, (12, 3))}
    sharded = shard_batch(batch, data_mesh())

    def ask(whom, batch):
        return batch["inputs"].reshape(len(batch["inputs"]), -1)[:, :3]

    for view in (
        Mixup(answers="interpolated"), CutMix(answers="interpolated"), Flip(), Crop(1),
        Pick(CutMix()),
    ):  # fmt: skip
        see = jax.jit(lambda key, batch, view=view: view(key, batch, ask))
        ours, theirs = see(key, batch), see(key, sharded)
        for name, rows in ours.items():
            np.testing.assert_allclose(theirs[name], rows, rtol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_value_loss_of_r2kd_through_the_step(beside):
    """Reference values: the batch twice where the view is the batch itself."""
    golden = np.load(GOLDEN / "r2kd.npz")
    student, teacher = (golden[f"{n}_logits"] for n in ("student", "teacher"))
    table = Model(
        lambda key, batch: {"w": jnp.array(student)},
        lambda params, batch, key: Outputs(logits=params["w"][batch["index"]]),
    )
    fixed = Model(
        lambda key, batch: jnp.array(teacher),
        lambda params, batch, key: Outputs(logits=params[batch["index"]]),
    )
    setting = Setting(
        {"student": table}, (fixed,), 2.0 * ValueCorrelation(4.0), optax.sgd(1.0),
        view=Beside(Flip(0.0)) if beside else None,
    )  # fmt: skip
    batch = {
        "index": jnp.arange(6), "mask": jnp.ones(6, bool),
        "inputs": jnp.zeros((6, 2, 2, 1)),
    }  # fmt: skip
    training = Offline().build(setting)
    state = training.init(
        jax.random.key(0),
        {"student": table.init(jax.random.key(1), batch)},
        (jnp.array(teacher),),
        batch,
    )
    after, metrics = training.step(state, (jnp.array(teacher),), batch)
    times = 2 if beside else 1
    np.testing.assert_allclose(
        metrics["loss"], times * golden["value_loss_T4_w2/loss"], rtol=1e-5
    )
    np.testing.assert_allclose(
        student - weights_of(after),
        times * golden["value_loss_T4_w2/grad_student_logits"],
        rtol=1e-4,
        atol=1e-6,
    )
    # The reference's rank loss has no gradient; this is its limit, which has none.
    hard = RankCorrelation(softness=1e-4)(jnp.array(student), jnp.array(teacher)).mean()
    np.testing.assert_allclose(2 * hard, golden["rank_loss_T4_w2/loss"], rtol=1e-4)
