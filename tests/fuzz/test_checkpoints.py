"""Any content of any file of a checkpoint."""

import json
import pathlib
import tempfile

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from fuzz.outcomes import FUZZ, outcome
from hypothesis import strategies as st

from kd.models import saved
from kd.models.mlp import MLP

BERT = pathlib.Path(__file__).parents[1] / "golden" / "tiny_bert"
WEIGHTS, CONFIG, INDEX = (
    "model.safetensors",
    "config.json",
    "model.safetensors.index.json",
)
BATCH = {"inputs": jnp.zeros((1, 4), jnp.float32)}
TEMPLATES = {}


class Content(bytes):
    """Bytes that a report does not print; hypothesis warns of long ones."""

    def __repr__(self):
        return f"<{len(self)} bytes>"


def contents(directory):
    return {
        name: Content((directory / name).read_bytes()) for name in (CONFIG, WEIGHTS)
    }


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """By kind of network: its files."""
    network = MLP(widths=(3,))
    params = network.build(2).init(jax.random.key(0), BATCH)
    directory = tmp_path_factory.mktemp("mlp")
    saved.save(directory, network, params, labels=("a", "b"))
    return {"bert": contents(BERT), "mlp": contents(directory)}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([0, -1, 1, 2, 2.0, "2", 10**9, 10**400, "\n", "../x", WEIGHTS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "2", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
DTYPES = st.sampled_from(
    ["float16", "bfloat16", "float32", "float64", "int8", "int64", "uint8", "bool"]
)


@st.composite
def damaged(draw, content):
    """Some bytes replaced, left out or put in, most at the start, where headers are."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(content), draw(st.sampled_from([9, 10**6])))))
        piece = draw(st.binary(max_size=8))
        content = content[:at] + piece + content[at + draw(st.integers(0, 8)) :]
    return content[: draw(st.sampled_from([None, None, None, 0, 7, 8, -1, -100]))]


@st.composite
def changed_json(draw, content):
    """A value or two of a JSON object replaced, or all of it."""
    values = json.loads(content)
    if not isinstance(values, dict) or draw(st.integers(0, 9)) == 0:
        values = draw(JSON)
    else:
        for _ in range(draw(st.integers(1, 2))):
            key = draw(st.sampled_from([*values, "problem_type", "x\n"]))
            values[key] = draw(JSON)
    return json.dumps(values).encode()


@st.composite
def changed_tensors(draw, content):
    """A tensor or two of another dtype, shape, value or name, or away."""
    tensors = safetensors.numpy.load(content)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors.pop(name)
        what = draw(st.integers(0, 5))
        if what == 0:
            tensor = np.zeros(draw(st.lists(st.integers(0, 3), max_size=4)), np.float32)
        elif what == 1:
            with np.errstate(invalid="ignore", over="ignore"):
                tensor = tensor.astype(draw(DTYPES))
        elif what == 2:
            value = draw(st.sampled_from([np.nan, np.inf, 0]))
            with np.errstate(invalid="ignore"):  # of whole numbers, from before
                tensor = np.full_like(tensor, value)
        elif what == 3:
            name = draw(st.sampled_from(["x\ny", "", "bert." + name, name[5:]]))
        if what < 5:
            tensors[name] = tensor
    return safetensors.numpy.save(tensors)


@st.composite
def index(draw, content):
    """What an index may say of the shards."""
    tensors = safetensors.numpy.load(content)
    files = ["a.safetensors", "b.safetensors", "c\n.safetensors", "../a", "/", 3, None]
    weight_map = {
        name: draw(st.sampled_from(files[:2] if draw(st.integers(0, 30)) else files))
        for name in draw(st.lists(st.sampled_from(sorted(tensors)), max_size=4))
    }
    return json.dumps(draw(st.just({"weight_map": weight_map}) | JSON)).encode()


def template_of(config):
    """Shapes of the network that a config describes; None if too large to lay out."""
    network, labels = config
    if getattr(network, "num_layers", 1) > 3:
        return None
    if config not in TEMPLATES:
        init = network.build(len(labels) or 1).init
        TEMPLATES[config] = jax.eval_shape(init, jax.random.key(0), BATCH)
    return TEMPLATES[config]


@pytest.mark.slow
@hypothesis.given(st.data())
@hypothesis.settings(FUZZ)
def test_any_checkpoint(samples, data):
    files = dict(samples[data.draw(st.sampled_from(sorted(samples)))])
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        if data.draw(st.integers(0, 4)) == 0:
            weights = files.pop(WEIGHTS)
            files["a.safetensors"] = files["b.safetensors"] = weights
            files[INDEX] = data.draw(index(weights))
        target = data.draw(st.sampled_from(sorted(files)))
        for name, content in files.items():
            path, whole = directory / name, name != target
            what = 9 if whole else data.draw(st.integers(0, 9))
            if what == 0:
                path.mkdir()
            elif what in (1, 2, 3):
                path.write_bytes(data.draw(damaged(content)))
            elif 4 <= what < 9:
                change = changed_json if name.endswith("json") else changed_tensors
                path.write_bytes(data.draw(change(content)))
            elif whole:
                path.write_bytes(content)
        config = outcome("checkpoints", lambda: saved.read_config(directory))
        if config is None or (template := template_of(config)) is None:
            return
        loaded = outcome(
            "checkpoints", lambda: saved.load(directory, config.network, template)
        )
        if loaded is not None:
            for place, leaf in jax.tree.leaves_with_path(loaded.params):
                if place[0].key not in loaded.fresh:
                    assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
