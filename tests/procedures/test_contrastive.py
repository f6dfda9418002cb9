"""Learning from two views: the step, and what holds the critic back."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.data.digit_grids import MULTI_MNIST
from kd.data.images import MNIST
from kd.divergences import KL
from kd.experiment import Experiment, Network
from kd.features.contracting import contracted
from kd.features.predictive_coding import InfoNCE, WassersteinPredictiveCoding
from kd.models.mlp import MLP
from kd.objective import CrossEntropy
from kd.procedures.contrastive import Contrastive
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.train.optimizer import AdamW

ENCODER = MLP(widths=(12,)).build(5)
WPC = WassersteinPredictiveCoding(width=8, slope=2.0)


def make_batch(rows=12, masked=2, seed=0):
    random = np.random.default_rng(seed)
    shared = random.normal(size=(rows, 6))
    return {
        "inputs": jnp.float32(shared + 0.3 * random.normal(size=(rows, 6))),
        "others": jnp.float32(-shared + 0.3 * random.normal(size=(rows, 6))),
        "labels": jnp.zeros(rows, jnp.int32),
        "mask": jnp.arange(rows) < rows - masked,
    }


def begun(procedure, objective, optimizer=None, **options):
    batch = make_batch()
    setting = Setting(
        {"student": ENCODER}, (), objective, optimizer or optax.sgd(1.0), **options
    )
    training = procedure.build(setting)
    params = {"student": ENCODER.init(jax.random.key(1), batch)}
    return training, training.init(jax.random.key(2), params, (), batch), batch


def encoded(params, view):
    return ENCODER.apply(params["student"], {"inputs": view}, None).logits


def score(loss, params, first, second):
    """f of pairs of views."""
    return loss.scores(
        params["objective"][loss.name], encoded(params, first), encoded(params, second)
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", [InfoNCE(width=8), WPC], ids=["info_nce", "wpc"])
def test_one_step_of_sgd_is_that_of_the_formula(loss):
    training, state, batch = begun(Contrastive(), 1.0 * loss)
    before = jax.device_get(state.params)
    kept = batch["mask"]

    def formula(params):
        first, second = (encoded(params, batch[k][kept]) for k in ("inputs", "others"))
        return loss(first, second, params=params["objective"][loss.name]).mean()

    value, gradient = jax.value_and_grad(formula)(before)
    after, metrics = training.step(state, (), batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-4
    )
    expected = jax.tree.map(lambda p, g: p - g, before, gradient)
    for ours, theirs in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    # The second view is no constant: were it one, the encoder would go elsewhere.
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, before)["student"])
    assert moved > 1e-4


@pytest.mark.slow
def test_the_penalty_is_of_slopes_in_both_views():
    """One second view for all examples, so that nothing lies between two of them."""
    procedure = Contrastive(lipschitz="penalty", penalty=3.0)
    training, state, batch = begun(procedure, 0.5 * WPC)
    batch["others"] = jnp.broadcast_to(batch["others"][:1], batch["others"].shape)
    params = jax.device_get(state.params)

    def total(views):
        return score(WPC, params, *views).sum()

    gradient = jax.grad(total)((batch["inputs"], batch["others"]))
    slopes = np.linalg.norm(np.concatenate(gradient, axis=1), axis=1)[batch["mask"]]
    assert all(np.linalg.norm(part) > 0.1 for part in gradient)
    _, plain = begun(Contrastive(), 0.5 * WPC)[0].step(copied(state), (), batch)
    _, metrics = training.step(copied(state), (), batch)
    np.testing.assert_allclose(metrics["wpc/slope"], slopes.mean(), rtol=1e-4)
    penalty = np.square(slopes / WPC.slope - 1).mean()
    np.testing.assert_allclose(metrics["loss/wpc_penalty"], penalty, rtol=1e-3)
    np.testing.assert_allclose(metrics["loss/wpc"], plain["loss/wpc"], atol=1e-5)
    expected = plain["loss"] + 0.5 * 3.0 * penalty
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


def copied(state):
    """The step takes the memory of the state that it is given."""
    return jax.tree.map(jnp.array, state)


@functools.cache
def trained(lipschitz, steps=150):
    """Parameters, and the slopes of f at the second views of other examples."""
    training, state, batch = begun(
        Contrastive(lipschitz=lipschitz), 1.0 * WPC, optax.adam(3e-2)
    )
    metrics: dict[str, Any] = {}
    for step in range(steps):
        state, metrics = training.step(state, (), make_batch(24, 0, seed=step))
    batch = make_batch(200, 0, seed=999)

    def total(views):
        return score(WPC, state.params, *views).sum()

    views = batch["inputs"], jnp.roll(batch["others"], 1, axis=0)
    slopes = np.linalg.norm(np.concatenate(jax.grad(total)(views), axis=1), axis=1)
    return state.params, slopes, metrics


@pytest.mark.slow
def test_the_penalty_holds_the_critic_back():
    _, free, _ = trained("none")
    _, held, metrics = trained("penalty")
    assert free.mean() > 4 * WPC.slope  # and would go on without end
    assert 0.5 < held.mean() / WPC.slope < 1.5
    assert metrics["wpc/slope"] < 3 * WPC.slope
    # And it still tells pairs apart.
    assert metrics["loss/wpc"] < -1


@pytest.mark.slow
def test_exact_holds_for_any_pair_of_views():
    params, slopes, metrics = trained("exact")
    for leaf in jax.tree.leaves(params):
        if leaf.ndim == 2:
            assert np.linalg.norm(leaf, 2) <= 1 + 1e-5
    assert slopes.max() <= WPC.slope * (1 + 1e-5)
    random = np.random.default_rng(0)
    x, y, a, b = jnp.float32(10 * random.normal(size=(4, 500, 6)))
    moved = np.abs(score(WPC, params, x, y) - score(WPC, params, a, b))
    apart = np.linalg.norm(np.concatenate([x - a, y - b], axis=1), axis=1)
    assert np.all(moved <= WPC.slope * apart * (1 + 1e-5)) and moved.max() > 1
    assert metrics["loss/wpc"] < -0.5
    # Not so without it, though it began there.
    free, _, _ = trained("none")
    assert max(np.linalg.norm(x, 2) for x in jax.tree.leaves(free) if x.ndim == 2) > 2


def test_exact_holds_from_the_first_step_on():
    _, state, _ = begun(Contrastive(lipschitz="exact"), 1.0 * WPC)
    for leaf in jax.tree.leaves(state.params):
        assert leaf.ndim != 2 or np.linalg.norm(leaf, 2) <= 1 + 1e-5
    kernels = contracted(state.params)
    for ours, theirs in zip(
        jax.tree.leaves(kernels), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("lipschitz", ["none", "penalty", "exact"])
def test_the_same_on_one_and_on_four_devices(lipschitz):
    losses = []
    for devices in (jax.devices()[:1], jax.devices()[:4]):
        mesh = data_mesh(devices)
        training, state, batch = begun(
            Contrastive(lipschitz=lipschitz), 1.0 * WPC, optax.adam(1e-2), mesh=mesh
        )
        state, batch = replicate(state, mesh), shard_batch(batch, mesh)
        found = []
        for _ in range(3):
            state, metrics = training.step(state, (), batch)
            found.append(float(metrics["loss"]))
        losses.append(found)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_gradients_of_terms_are_told_apart():
    training, state, batch = begun(
        Contrastive(lipschitz="penalty"), 1.0 * WPC + 0.5 * InfoNCE(width=8),
        term_gradients="watched",
    )  # fmt: skip
    _, metrics = training.step(state, (), batch)
    names = ["wpc", "info_nce", "wpc_penalty", "info_nce_penalty"]
    assert all(metrics[f"gradient/{name}"] > 0 for name in names)
    assert metrics["info_nce/slope"] > 0 and "cosine/wpc/wpc_penalty" in metrics


def experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "data": MULTI_MNIST,
        "student": MLP(widths=(8,)),
        "objective": 1.0 * WPC,
        "procedure": Contrastive(),
        "optimizer": AdamW(),
        "num_steps": 10,
    }
    return Experiment(**(fields | changes))


def test_what_does_not_go_together_is_refused():
    made = experiment()
    refused: list[tuple[dict[str, Any], str]] = [
        (
            {"procedure": Offline()},
            "wpc compares two views of every example, and Offli",
        ),
        ({"data": MNIST}, "mnist gives one view of an example, and Contrastive needs"),
        ({"objective": 1.0 * CrossEntropy()}, "ce does not compare two views"),
        ({"objective": 1.0 * KL() + 1.0 * WPC}, "kl compares predicted classes"),
        ({"teachers": (Network(recipe=made),)}, "Contrastive asks no teacher, and th"),
        (
            {
                "procedure": Contrastive(lipschitz="exact"),
                "student": MLP(widths=(8,), dropout=0.1),
            },
            "lipschitz=exact needs a student that is an MLP without dropout",
        ),
        ({"batch_size": 1}, "wpc tells examples of a batch apart, and it has only one"),
    ]
    for changes, message in refused:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(made, **changes)
    with pytest.raises(ValueError, match="penalty must be positive"):
        Contrastive(penalty=0.0)
