"""A trained network from its place: what is looked at first, and what it lacks."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from kd.data.glue import SST2
from kd.data.task import Corpus, Prepared
from kd.data.text import Encoded, Sentences
from kd.errors import UserError
from kd.models import bert_checkpoint
from kd.models.bert import Bert
from kd.networks.load import Found, load_start

TINY_BERT = pathlib.Path(__file__).parents[1] / "golden" / "tiny_bert"


@pytest.fixture
def place(tmp_path):
    return pathlib.Path(shutil.copytree(TINY_BERT, tmp_path / "model"))


@pytest.fixture
def data():
    """One example of four tokens."""
    labels = np.zeros(1, np.int32)
    tokens = np.array([2, 5, 6, 3], np.int32)
    split = Encoded(
        tokens=tokens, segments=np.zeros_like(tokens), offsets=np.array([0, 4]),
        labels=labels, paired=False, widths=(8,),
    )  # fmt: skip
    records = Sentences(["a"], labels)
    corpus = Corpus(train=records, dev=records, source="bundled", name="one")
    return Prepared(corpus, split, split, "", vocab_size=64)


def test_sizes_that_are_not_those_of_the_weights_take_no_memory(
    place, data, monkeypatch
):
    config = json.loads((place / "config.json").read_text()) | {"vocab_size": 1000}
    (place / "config.json").write_text(json.dumps(config))
    build, computed = Bert.build, []

    def counted(*args, **settings):
        model = build(*args, **settings)

        def init(key, batch):
            jax.debug.callback(lambda: computed.append(1))
            return model.init(key, batch)

        return model._replace(init=init)

    monkeypatch.setattr(Bert, "build", counted)
    with pytest.raises(UserError, match="64 tokens, the network a vocab_size of 1000"):
        load_start(Found(str(place), "here"), SST2, data)
    jax.effects_barrier()
    assert not computed


def test_what_a_start_lacks_has_its_initial_values(place, data):
    weights = safetensors.numpy.load_file(place / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    safetensors.numpy.save_file(kept, place / "model.safetensors")
    start = load_start(Found(str(place), "here"), SST2, data)
    assert start.fresh == ("pooler", "classifier")
    model = bert_checkpoint.read_config(place).bert.build(3)
    initial = jax.jit(model.init)(jax.random.key(0), {})
    whole = bert_checkpoint.load_pretrained(TINY_BERT, initial).params
    expected = whole | {"pooler": initial["pooler"]}
    jax.tree.map(np.testing.assert_array_equal, start.params, expected)
