"""Weights set to 0 in training, against a loop over the steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import killed_at_batch, tiny_experiment

from kd import config, run
from kd.errors import UserError
from kd.objective import CrossEntropy
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train import metrics_log
from kd.train.optimizer import AdamW
from kd.train.pruning import Pruning
from kd.types import Model, Outputs


def make_params():
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.float32(random.normal(size=shape)),
        {
            "student": {
                "embeddings": {"tokens": (5, 4)},
                "dense": {"kernel": (4, 7), "bias": (7,)},
                "conv": {"kernel": (3, 3, 2, 5)},
            },
            "objective": {"hints": {"kernel": (4, 4)}},
        },
        is_leaf=lambda x: isinstance(x, tuple),
    )


def trained(optimizer, num_steps):
    """The parameters after every step of random gradients, and the sparsity."""
    params, made = make_params(), optimizer.build(num_steps)
    state, random = made.init(params), np.random.default_rng(1)

    @jax.jit
    def step(gradient, state, params):
        updates, state = made.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    found = []
    for _ in range(num_steps):
        gradient = jax.tree.map(
            lambda x: jnp.float32(random.normal(size=x.shape)), params
        )
        params, state = step(gradient, state, params)
        sparsity = optax.tree.get(state, "sparsity")
        found.append((jax.device_get(params), sparsity and float(sparsity)))
    return found


def schedule(step, *, share, first, last, every):
    """The sparsity after a step, from the formula."""
    if step < first:
        return 0.0
    step = last if step >= last else step - (step - first) % every
    return share * (1 - (1 - (step - first) / (last - first)) ** 3)


@pytest.mark.parametrize("every", [1, 4, 100])
def test_shares_are_exact_and_follow_the_schedule(every):
    pruning = Pruning(share=0.8, begin=0.1, end=0.7, every=every)
    optimizer = AdamW(learning_rate=0.1, pruning=pruning)
    before = None
    for step, (params, sparsity) in enumerate(trained(optimizer, 30)):
        wanted = schedule(step, share=0.8, first=3, last=20, every=every)
        zeros = sizes = 0
        for name in ("dense", "conv"):
            zero = params["student"][name]["kernel"] == 0
            assert zero.sum() == round(wanted * zero.size), (step, name)
            if before is not None:
                # What was pruned stays so.
                assert zero[before["student"][name]["kernel"] == 0].all()
            zeros, sizes = zeros + zero.sum(), sizes + zero.size
        np.testing.assert_allclose(sparsity, zeros / sizes, rtol=1e-6)
        for others in (
            params["student"]["embeddings"]["tokens"],
            params["student"]["dense"]["bias"], params["objective"]["hints"]["kernel"],
        ):  # fmt: skip
            assert (others != 0).all()
        before = params


def test_the_smallest_after_the_update_are_pruned():
    pruning = Pruning(share=0.5, begin=0.0, end=0.2, every=1)
    ours = trained(AdamW(learning_rate=0.1, pruning=pruning), 5)[0][0]
    theirs = trained(AdamW(learning_rate=0.1), 5)[0][0]
    for name in ("dense", "conv"):
        pruned, whole = (x["student"][name]["kernel"] for x in (ours, theirs))
        size = np.abs(whole)
        smallest = size <= np.sort(size, axis=None)[round(0.5 * size.size) - 1]
        np.testing.assert_array_equal(pruned, np.where(smallest, 0, whole))


def test_until_it_begins_it_is_the_optimizer_alone():
    pruning = Pruning(share=0.5, begin=0.5, end=0.9)
    ours = trained(AdamW(pruning=pruning), 10)
    theirs = trained(AdamW(), 10)
    jax.tree.map(np.testing.assert_array_equal, ours[4][0], theirs[4][0])
    assert ours[4][1] == 0 < ours[-1][1] and theirs[-1][1] is None


def test_the_last_step_may_be_the_end():
    pruning = Pruning(share=0.3, begin=0.0, end=1.0, every=7)
    params, _ = trained(AdamW(pruning=pruning), 10)[-1]
    assert (params["student"]["conv"]["kernel"] == 0).sum() == 27


def test_what_is_frozen_is_not_pruned():
    pruning = Pruning(share=0.5, begin=0.0, end=0.5, every=1)
    params, sparsity = trained(AdamW(pruning=pruning, frozen=("conv",)), 4)[-1]
    student = make_params()["student"]
    np.testing.assert_array_equal(
        params["student"]["conv"]["kernel"], student["conv"]["kernel"]
    )
    assert (params["student"]["dense"]["kernel"] == 0).sum() == 14
    assert sparsity == 0.5


def test_sparsity_is_a_metric_of_the_step():
    model = Model(
        lambda key, batch: {"dense": {"kernel": jax.random.normal(key, (4, 3))}},
        lambda params, batch, key: Outputs(batch["inputs"] @ params["dense"]["kernel"]),
    )
    batch = {
        "inputs": jnp.ones((6, 4)), "mask": jnp.ones(6, bool),
        "labels": jnp.zeros(6, int),
    }  # fmt: skip
    pruning = Pruning(share=0.5, begin=0.0, end=1.0, every=1)
    for optimizer, watched in ((AdamW(pruning=pruning), True), (AdamW(), False)):
        setting = Setting(
            {"student": model}, (), 1.0 * CrossEntropy(), optimizer.build(3)
        )
        training = Offline().build(setting)
        first = {"student": model.init(jax.random.key(0), batch)}
        state = training.init(jax.random.key(1), first, (), batch)
        for _ in range(3):
            state, metrics = training.step(state, (), batch)
        assert ("sparsity" in metrics) == watched
        assert not watched or metrics["sparsity"] == 0.5


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("share=1", r"share is of every layer's weights, in \[0, 1\), got 1.0"),
        ("begin=0.8", "0 <= begin < end <= 1, got 0.8 and 0.7"),
        ("end=1.1", "0 <= begin < end <= 1, got 0.1 and 1.1"),
        ("every=0", "every must be at least 1, got 0"),
    ],
)
def test_what_is_out_of_range_is_refused(field, message):
    with pytest.raises(UserError, match=message):
        config.override(AdamW(), f"pruning.{field}")


@pytest.mark.slow
def test_a_run_with_pruning_goes_on_bit_for_bit(place):
    tiny = tiny_experiment()
    tiny = dataclasses.replace(tiny, objective=1.0 * CrossEntropy())
    pruning = Pruning(share=0.6, every=3)
    experiment = dataclasses.replace(
        tiny, optimizer=dataclasses.replace(tiny.optimizer, pruning=pruning)
    )
    run.run(experiment, "whole", place.workspace)
    with killed_at_batch(13):
        run.run(experiment, "again", place.workspace)
    run.run(experiment, "again", place.workspace)
    assert "resuming after step 8 of 24" in place.said
    whole, again = (place.workspace.runs / name / "0" for name in ("whole", "again"))
    weights = "model/model.safetensors"
    assert (whole / weights).read_bytes() == (again / weights).read_bytes()
    rows = [
        [row.get("sparsity") for row in metrics_log.read(d / "metrics.jsonl")]
        for d in (whole, again)
    ]
    assert rows[0] == rows[1]
    assert 0.59 < [x for x in rows[0] if x is not None][-1] < 0.61
