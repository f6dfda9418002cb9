"""DistilBERT and RoBERTa: to and from transformers, and what their sizes are."""

import dataclasses
import json
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kd.errors import UserError
from kd.models import saved
from kd.models.bert import Bert

TINY = {
    "vocab_size": 30,
    "num_layers": 2,
    "width": 12,
    "num_heads": 3,
    "mlp_width": 20,
    "max_length": 16,
}
NETWORKS = {
    "distilbert": Bert.distilbert(**TINY),
    "roberta": Bert.roberta_base(**TINY, head_dropout=0.3),
    "bert": Bert(**cast(Any, TINY)),
}
VARIANTS = ("distilbert", "roberta")
LENGTHS = np.array([9, 6, 1])
MASK = np.arange(9) < LENGTHS[:, None]
TOKENS = np.where(MASK, np.random.default_rng(1).integers(3, 30, (3, 9)), 1)
BATCH = {
    "tokens": jnp.asarray(TOKENS, jnp.int32),
    "token_mask": jnp.asarray(MASK),
    "segments": jnp.asarray(np.arange(9) > np.array([[3]] * 3), jnp.int32),
}


def random_params(network):
    shapes = jax.eval_shape(network.build(3).init, jax.random.key(0), {})
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: random.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )


def load(directory):
    network, labels = saved.read_config(directory)
    model = cast(Any, network).build(len(labels))
    template = jax.eval_shape(model.init, jax.random.key(0), {})
    return network, labels, saved.load(directory, network, template)


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip_is_exact(name, tmp_path):
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path, network, params, labels=("a", "b", "c"))
    found, labels, loaded = load(tmp_path)
    assert (found, labels) == (network, ("a", "b", "c"))
    assert (loaded.fresh, loaded.unread) == ((), ())
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    assert saved.model_type(network) == name


@pytest.mark.parametrize("name", VARIANTS)
def test_an_encoder_alone_keeps_the_fresh_head(name, tmp_path):
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path, network, params, labels=("a", "b", "c"))
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    body = {
        key.removeprefix(f"{name}."): x
        for key, x in tensors.items()
        if "classifier" not in key
    }
    safetensors.numpy.save_file(body | {"lm_head.bias": np.ones(3, np.float32)}, path)
    fresh = jax.tree.map(lambda x: x + 1, params)
    loaded = saved.load(tmp_path, network, fresh)
    assert loaded.fresh == ("classifier", "pooler")
    assert loaded.unread == ("lm_head.bias",)
    for part, expected in params.items():
        expected = fresh[part] if part in loaded.fresh else expected
        jax.tree.map(np.testing.assert_array_equal, loaded.params[part], expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_and_segments_change_nothing(name):
    network = NETWORKS[name]
    params, apply = random_params(network), jax.jit(network.build(3).apply)
    whole = apply(params, BATCH, None)
    alone = {key: x[1:2, :6] for key, x in BATCH.items() if key != "segments"}
    np.testing.assert_allclose(
        apply(params, alone, None).logits[0], whole.logits[1], rtol=1e-4, atol=1e-5
    )


def test_rows_before_the_first_position_are_not_read():
    network = NETWORKS["roberta"]
    params, apply = random_params(network), jax.jit(network.build(3).apply)
    positions = params["embeddings"]["positions"]
    assert positions.shape == (18, 12)

    def changed(row):
        moved = positions.copy()
        moved[row, ::2] += 1  # A norm does not see a shift of all.
        embeddings = params["embeddings"] | {"positions": moved}
        return apply(params | {"embeddings": embeddings}, BATCH, None).hidden[0][0]

    before = apply(params, BATCH, None).hidden[0][0]
    for row in (0, 1, 11):
        np.testing.assert_array_equal(changed(row), before)
    for row in (2, 10):
        moved = np.abs(changed(row) - before).max(axis=-1) > 1e-2
        np.testing.assert_array_equal(moved, np.arange(9) == row - 2)


@pytest.mark.slow
def test_head_dropout_is_of_the_head_alone():
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    network = dataclasses.replace(NETWORKS["bert"], **still)
    params, key = random_params(network), jax.random.key(0)

    def outputs(network):
        return jax.jit(network.build(3).apply)(params, BATCH, key)

    plain = outputs(network)
    dropped = outputs(dataclasses.replace(network, head_dropout=0.5))
    np.testing.assert_array_equal(plain.hidden[-1], dropped.hidden[-1])
    assert np.abs(plain.logits - dropped.logits).max() > 0.01
    as_before = dataclasses.replace(NETWORKS["bert"], head_dropout=0.1)
    np.testing.assert_array_equal(
        outputs(NETWORKS["bert"]).logits, outputs(as_before).logits
    )


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        (Bert.distilbert(), 66.4),
        (Bert.roberta_base(), 124.1),
        (Bert.distilroberta(), 81.5),
    ],
    ids=["distilbert", "roberta_base", "distilroberta"],
)
def test_sizes_of_the_encoders_are_those_of_the_published_ones(network, millions):
    shapes = jax.eval_shape(network.build(2).init, jax.random.key(0), {})
    body = {k: v for k, v in shapes.items() if k not in ("pooler", "classifier")}
    found = sum(leaf.size for leaf in jax.tree.leaves(body))
    assert found / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "distilbert"}, "num_segments is 2, must be 0 in a distilbert"),
        ({"num_segments": 0}, "num_segments is 0, must be at least 1"),
        ({"head_dropout": 1.0}, r"head_dropout is 1\.0, must be in \[0, 1\)"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Bert(**changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("distilbert", {"activation": "relu"}, "activation is 'relu'; only 'gelu' is"),
        ("distilbert", {"sinusoidal_pos_embds": True}, "embds is True; only False is"),
        ("distilbert", {"dim": 13}, "width 13 is not divisible by num_heads 3"),
        ("distilbert", {"seq_classif_dropout": "x"}, "seq_classif_dropout is 'x'; exp"),
        ("roberta", {"pad_token_id": 0}, "pad_token_id is 0; only 1 is supported"),
        ("roberta", {"max_position_embeddings": 2}, "max_length is 0, must be at lea"),
        ("roberta", {"model_type": "camembert"}, "model_type is 'camembert'; expected"),
    ],
)
def test_what_is_not_computed_is_refused(name, changes, message, tmp_path):
    network = NETWORKS[name]
    saved.save(tmp_path, network, random_params(network), labels=("a", "b", "c"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message) as refused:
        saved.read_config(tmp_path)
    assert str(refused.value).startswith(str(path))


def test_choices():
    network, params = NETWORKS["roberta"], random_params(NETWORKS["roberta"])
    with pytest.raises(ValueError, match="RoBERTa of choices has another head"):
        saved.save("", network, params, labels=("a", "b", "c"), head="MultipleChoice")


# --- transformers ---


def there(network):
    torch = pytest.importorskip("torch")
    return network(
        input_ids=torch.tensor(TOKENS),
        attention_mask=torch.tensor(MASK).long(),
        output_hidden_states=True,
        output_attentions=True,
    )


def check_like_transformers(network, params, theirs, **close):
    """Logits, hidden states and attention, and the gradient of a loss."""
    torch = pytest.importorskip("torch")
    expected = there(theirs)
    torch.manual_seed(0)
    apply = jax.jit(network.build(3).apply)
    outputs = apply(params, BATCH, None)
    np.testing.assert_allclose(outputs.logits, expected.logits.detach(), **close)
    hidden = torch.stack(expected.hidden_states).detach().numpy()
    np.testing.assert_allclose(
        np.stack(outputs.hidden)[:, MASK], hidden[:, MASK], **close
    )
    attention = torch.stack(expected.attentions).detach().numpy()
    by_query = (0, 1, 3, 2, 4)
    np.testing.assert_allclose(
        np.stack(outputs.attention).transpose(by_query)[:, MASK],
        attention.transpose(by_query)[:, MASK],
        **close,
    )
    weights = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    gradient = jax.jit(
        jax.grad(lambda p: (apply(p, BATCH, None).logits * weights).sum())
    )(params)
    theirs.zero_grad()
    (expected.logits * torch.tensor(weights)).sum().backward()
    return gradient


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_computes_the_same(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    network, params = NETWORKS[name], random_params(NETWORKS[name])
    saved.save(tmp_path / "new", network, params, labels=("a", "b", "c"))
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "new", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    close = {"rtol": 1e-4, "atol": 1e-5}
    gradient = check_like_transformers(network, params, theirs.eval(), **close)
    # Gradients by the names of weights: those of a network that holds them instead.
    saved.save(tmp_path / "gradient", network, gradient, labels=("a", "b", "c"))
    found = safetensors.numpy.load_file(tmp_path / "gradient" / "model.safetensors")
    named = dict(theirs.named_parameters())
    assert found.keys() == named.keys()
    for key, parameter in named.items():
        np.testing.assert_allclose(
            found[key], parameter.grad.numpy(), err_msg=key, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_what_transformers_saves_is_read(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {
        "distilbert": lambda: transformers.DistilBertConfig(
            vocab_size=30, dim=12, n_layers=2, n_heads=3, hidden_dim=20,
            max_position_embeddings=16, num_labels=3,
        ),
        "roberta": lambda: transformers.RobertaConfig(
            vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
            intermediate_size=20, max_position_embeddings=18, type_vocab_size=1,
            layer_norm_eps=1e-5, classifier_dropout=0.3, num_labels=3,
        ),
    }[name]()  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path)
    network, _, loaded = load(tmp_path)
    assert (loaded.fresh, loaded.unread) == ((), ())
    assert network == NETWORKS[name]
    check_like_transformers(network, loaded.params, theirs, rtol=1e-4, atol=1e-5)
