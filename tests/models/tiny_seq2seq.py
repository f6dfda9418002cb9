"""Tiny encoder-decoders of transformers', and what they said and wrote there."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from models.tiny_decoders import END, GOLDEN

from kd.models import generate, saved

NAMES = ("t5", "t5_v1_1", "bart")
STATES = (
    *("hidden", "attention", "source_hidden", "source_attention"),
    "cross_attention",
)
"""Of `Outputs`, [layers, b, ...] each."""


class Tiny:
    """A tiny network of transformers', and what it said there."""

    def __init__(self, name):
        self.directory = GOLDEN / f"tiny_{name}"
        with np.load(self.directory / "expected.npz") as arrays:
            self.golden = dict(arrays)
        names = ("tokens", "token_mask", "target_tokens", "target_mask")
        self.batch = {name: jnp.asarray(self.golden[name]) for name in names}
        self.source = {name: self.batch[name] for name in names[:2]}
        self.real, self.real_target = (self.golden[name] for name in names[1::2])
        self.network = cast(Any, saved.read_config(self.directory).network)
        self.model = self.network.build()
        template = jax.eval_shape(self.model.init, jax.random.key(0), {})
        loaded = saved.load(self.directory, self.network, template)
        assert (loaded.fresh, loaded.unread) == ((), ())
        self.params = loaded.params
        self.outputs = jax.jit(self.model.apply)(self.params, self.batch, None)

    def check_states(self, outputs, **close):
        """Logits and states equal transformers', where tokens are real."""
        real, target = self.real, self.real_target
        np.testing.assert_allclose(
            outputs.logits[target], self.golden["logits"][target], **close
        )
        for name in STATES:
            found, expected = np.stack(getattr(outputs, name)), self.golden[name]
            if name.endswith("attention"):
                by_query = (0, 1, 3, 2, 4)
                found, expected = (x.transpose(by_query) for x in (found, expected))
            rows = real if name.startswith("source") else target
            np.testing.assert_allclose(
                found[:, rows], expected[:, rows], err_msg=name, **close
            )

    def write(self, how, num_tokens=8, batch=None, key=None, end=END):
        return generate.generate(
            self.model, self.params, self.source if batch is None else batch,
            jax.random.key(0) if key is None else key,
            how, num_tokens=num_tokens, end=end,
        )  # fmt: skip
