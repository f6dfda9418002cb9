"""Tiny networks of transformers', and what they said and wrote there."""

from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from kd.models import generate, saved

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
END = (3, 11)
"""Tokens that ended texts there."""


class Tiny:
    """A tiny network of transformers', and what it said there."""

    def __init__(self, name):
        self.directory = GOLDEN / f"tiny_{name}"
        with np.load(self.directory / "expected.npz") as arrays:
            self.golden = dict(arrays)
        inputs = {name: self.golden[name] for name in ("tokens", "token_mask")}
        self.batch = {name: jnp.asarray(x) for name, x in inputs.items()}
        self.real = inputs["token_mask"]
        self.network = cast(Any, saved.read_config(self.directory).network)
        self.model = self.network.build()
        template = jax.eval_shape(self.model.init, jax.random.key(0), {})
        loaded = saved.load(self.directory, self.network, template)
        assert (loaded.fresh, loaded.unread) == ((), ())
        self.params = loaded.params
        self.outputs = jax.jit(self.model.apply)(self.params, self.batch, None)

    def write(self, how, num_tokens=8, batch=None, key=None, end=END):
        return generate.generate(
            self.model, self.params, self.batch if batch is None else batch,
            jax.random.key(0) if key is None else key,
            how, num_tokens=num_tokens, end=end,
        )  # fmt: skip
