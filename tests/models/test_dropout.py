import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.models.bert import Bert
from kd.models.dropout import Dropout

LAYERS = [((3, 5, 4), (1,)), ((3, 2, 5, 5), (2, 3)), ((3, 4), ())]


def padded(x, token_axes, by=3):
    return jnp.pad(x, [(0, by if axis in token_axes else 0) for axis in range(x.ndim)])


@pytest.mark.parametrize(("shape", "token_axes"), LAYERS)
def test_padding_changes_no_draw(key, shape, token_axes):
    x = jnp.ones(shape)
    rngs = {"dropout": key}
    expected = np.asarray(nn.Dropout(0.5, deterministic=False).apply({}, x, rngs=rngs))
    assert 0 < (expected == 0).mean() < 1
    layer = Dropout(0.5, deterministic=False)
    np.testing.assert_array_equal(layer.apply({}, x, rngs=rngs), expected)
    found = layer.apply({}, padded(x, token_axes), jnp.int32(5), token_axes, rngs=rngs)
    within = np.asarray(found)[tuple(slice(size) for size in shape)]
    np.testing.assert_array_equal(within, expected)


@pytest.mark.slow
def test_a_network_padded_further_gives_what_it_gave(key):
    bert = Bert(
        vocab_size=20, num_layers=2, width=8, num_heads=2, mlp_width=16, max_length=16,
        dropout=0.4, attention_dropout=0.4,
    )  # fmt: skip
    model = bert.build(3)
    params = jax.jit(model.init)(key, {})
    tokens = jax.random.randint(key, (4, 6), 1, 20)
    token_mask = jnp.arange(6) < jnp.array([[6], [2], [5], [1]])
    short = {"tokens": tokens, "token_mask": token_mask}
    wide = {name: padded(x, (1,), by=10) for name, x in short.items()}

    @jax.jit
    def logits(batch, key):
        return model.apply(params, batch, key).logits

    expected = logits(short, key)
    found = logits(wide | {"width": jnp.full(4, 6)}, key)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits(wide, key), expected, atol=1e-3)
    np.testing.assert_allclose(
        logits(wide, None), logits(short, None), rtol=1e-5, atol=1e-6
    )
