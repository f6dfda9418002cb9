"""A decoder given sources and targets says what it says of both in one row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.models.after_sources import after_sources
from kd.models.generate import generate
from kd.models.gpt2 import GPT2
from kd.models.llama import Llama

SOURCES, TARGETS = [[3, 4, 5], [6, 7, 8, 9, 1], [2]], [[1, 2, 0], [5, 0], [4, 4, 4, 0]]
SIZES = {"vocab_size": 11, "num_layers": 2, "width": 16, "max_length": 24}
NETWORKS = (
    GPT2(**SIZES, num_heads=2, mlp_width=32),
    Llama(**SIZES, num_heads=2, num_key_value_heads=1, head_width=8, mlp_width=16),
)


def filled(lists, width, left=False, junk=0):
    tokens = np.full((len(lists), width), junk, np.int32)
    mask = np.zeros((len(lists), width), bool)
    for i, ids in enumerate(lists):
        where = slice(width - len(ids), width) if left else slice(0, len(ids))
        tokens[i, where], mask[i, where] = ids, True
    return jnp.asarray(tokens), jnp.asarray(mask)


def batch_of(width, target_width, **how):
    tokens, token_mask = filled(SOURCES, width, **how)
    target_tokens, target_mask = filled(TARGETS, target_width, junk=how.get("junk", 0))
    return {
        "tokens": tokens,
        "token_mask": token_mask,
        "target_tokens": target_tokens,
        "target_mask": target_mask,
    }


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: type(n).__name__)
def test_it_is_the_network_on_both_in_one_row(network):
    model = network.build()
    params = model.init(jax.random.key(0), {})
    found = after_sources(model).apply(params, batch_of(6, 5), None)
    assert found.logits.shape == (3, 5, 11)
    for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        whole = jnp.array([source + target])
        row = {"tokens": whole, "token_mask": jnp.ones_like(whole, bool)}
        expected = model.apply(params, row, None)
        first, m = len(source) - 1, len(target)
        np.testing.assert_allclose(
            found.logits[i, :m], expected.logits[0, first : first + m], atol=2e-6
        )
        np.testing.assert_allclose(
            found.hidden[-1][i, :m],
            expected.hidden[-1][0, first : first + m],
            atol=2e-6,
        )


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: type(n).__name__)
def test_padding_changes_neither_loss_nor_gradient(network):
    model = after_sources(network.build())
    params = model.init(jax.random.key(0), {})

    def loss(params, batch):
        logits = jax.nn.log_softmax(model.apply(params, batch, None).logits)
        came = jnp.take_along_axis(logits, batch["target_tokens"][..., None], axis=-1)
        return -jnp.sum(came[..., 0], where=batch["target_mask"])

    ours = jax.value_and_grad(loss)(params, batch_of(5, 4))
    for other in (
        batch_of(8, 7),
        batch_of(8, 4, left=True),
        batch_of(7, 6, junk=9),
    ):
        theirs = jax.value_and_grad(loss)(params, other)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6, rtol=1e-5),
            ours,
            theirs,
        )


@pytest.mark.slow
def test_it_writes_as_the_network_does():
    model = NETWORKS[1].build()
    params = model.init(jax.random.key(0), {})
    batch = {k: x for k, x in batch_of(6, 5).items() if not k.startswith("target")}
    ours, theirs = (
        generate(m, params, batch, jax.random.key(0), num_tokens=4)
        for m in (after_sources(model), model)
    )
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
