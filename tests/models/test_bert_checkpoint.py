"""Every kind of checkpoint of a BERT, and one line for what cannot be read."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kd.data.superglue import COPA
from kd.errors import UserError
from kd.models import bert_checkpoint, hub
from kd.models.bert import Bert

DIRECTORY = Path(__file__).parents[1] / "golden" / "tiny_bert"
LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture(scope="module")
def bert():
    return bert_checkpoint.read_config(DIRECTORY).bert


@pytest.fixture(scope="module")
def fresh_params(bert):
    return jax.jit(bert.build(3).init)(jax.random.key(5), {})


@pytest.fixture(scope="module")
def golden_params(fresh_params):
    return bert_checkpoint.load_pretrained(DIRECTORY, fresh_params).params


def rewrite(directory, change):
    """A checkpoint in `directory` whose tensors went through `change(name, tensor)`."""
    tensors = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    changed = [change(name, tensor) for name, tensor in tensors.items()]
    safetensors.numpy.save_file(
        dict(pair for pair in changed if pair), directory / "model.safetensors"
    )


def rewrite_config(directory, **changes):
    values = json.loads((DIRECTORY / "config.json").read_text()) | changes
    values = {key: value for key, value in values.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(values))


def assert_equal(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_config_is_read():
    bert, labels = bert_checkpoint.read_config(DIRECTORY)
    assert bert == Bert(
        vocab_size=64,
        num_layers=2,
        width=32,
        num_heads=2,
        mlp_width=96,
        max_length=24,
    )
    assert labels == LABELS
    assert bert_checkpoint.read_config(DIRECTORY).num_classes == 3


def test_complete_checkpoint_leaves_nothing_out(fresh_params):
    _, fresh, unread = bert_checkpoint.load_pretrained(DIRECTORY, fresh_params)
    assert (fresh, unread) == ((), ())


def test_round_trip_is_exact(bert, golden_params, fresh_params, tmp_path):
    directory = tmp_path / "new" / "folder"
    bert_checkpoint.save_pretrained(directory, bert, golden_params, labels=LABELS)
    assert_equal(
        bert_checkpoint.load_pretrained(directory, fresh_params).params, golden_params
    )
    assert bert_checkpoint.read_config(directory) == (bert, LABELS)
    assert {path.name for path in directory.iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    ours = safetensors.numpy.load_file(directory / "model.safetensors")
    theirs = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_config_says_what_transformers_asks(bert, golden_params, tmp_path):
    path = tmp_path / "config.json"
    bert_checkpoint.save_pretrained(tmp_path, bert, golden_params)
    values = json.loads(path.read_text())
    assert (values["pad_token_id"], values["dtype"]) == (0, "float32")
    assert "problem_type" not in values
    bert_checkpoint.save_pretrained(
        tmp_path, bert, golden_params, problem_type="regression"
    )
    assert json.loads(path.read_text()) == values | {"problem_type": "regression"}
    assert bert_checkpoint.read_config(tmp_path).bert == bert


def test_labels_have_default_names_and_must_match(bert, golden_params, tmp_path):
    bert_checkpoint.save_pretrained(tmp_path, bert, golden_params)
    assert bert_checkpoint.read_config(tmp_path).labels == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        bert_checkpoint.save_pretrained(
            tmp_path, bert, golden_params, labels=("no", "yes")
        )


def test_encoder_alone_keeps_the_fresh_head(golden_params, fresh_params, tmp_path):
    def as_bert_model(name, tensor):
        if not name.startswith("classifier"):
            return name.removeprefix("bert."), tensor

    rewrite(tmp_path, as_bert_model)
    params, fresh, unread = bert_checkpoint.load_pretrained(tmp_path, fresh_params)
    assert (fresh, unread) == (("classifier",), ())
    assert_equal(params, golden_params | {"classifier": fresh_params["classifier"]})


def test_old_names_are_read(golden_params, fresh_params, tmp_path):
    def as_in_2018(name, tensor):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return name.replace("LayerNorm.bias", "LayerNorm.beta"), tensor

    rewrite(tmp_path, as_in_2018)
    assert_equal(
        bert_checkpoint.load_pretrained(tmp_path, fresh_params).params, golden_params
    )


def test_masked_lm_has_no_pooler_and_an_unread_head(fresh_params, tmp_path):
    def as_masked_lm(name, tensor):
        if name == "classifier.weight":
            return "cls.predictions.transform.dense.weight", tensor
        if name.startswith("bert.pooler") or name.startswith("classifier"):
            return None
        return name, tensor

    rewrite(tmp_path, as_masked_lm)
    _, fresh, unread = bert_checkpoint.load_pretrained(tmp_path, fresh_params)
    assert fresh == ("classifier", "pooler")
    assert unread == ("cls.predictions.transform.dense.weight",)


def test_first_layers_of_a_deeper_checkpoint(golden_params, fresh_params):
    shallow = {name: fresh_params[name] for name in fresh_params if name != "layer_1"}
    params, fresh, unread = bert_checkpoint.load_pretrained(DIRECTORY, shallow)
    assert_equal(params["layer_0"], golden_params["layer_0"])
    assert not fresh
    assert len(unread) == 16
    assert all(name.startswith("encoder.layer.1.") for name in unread)


def test_bfloat16_weights_become_float32(golden_params, fresh_params, tmp_path):
    rewrite(tmp_path, lambda name, tensor: (name, tensor.astype(jnp.bfloat16)))
    params = bert_checkpoint.load_pretrained(tmp_path, fresh_params).params
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0.004), params, golden_params
    )


def test_shards_are_read_through_their_index(golden_params, fresh_params, tmp_path):
    tensors = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    names = sorted(tensors)
    shards = {"first.safetensors": names[:20], "second.safetensors": names[20:]}
    for filename, part in shards.items():
        shard = {name: tensors[name] for name in part}
        safetensors.numpy.save_file(shard, tmp_path / filename)
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_equal(
        bert_checkpoint.load_pretrained(tmp_path, fresh_params).params, golden_params
    )
    (tmp_path / "second.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no second\.safetensors"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_a_whole_file_goes_before_shards(golden_params, fresh_params, tmp_path):
    rewrite(tmp_path, lambda name, tensor: (name, tensor))
    index = {"weight_map": {"classifier.bias": "other.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_equal(
        bert_checkpoint.load_pretrained(tmp_path, fresh_params).params, golden_params
    )


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}}, "weight_map is None; expected an object"),
        ([], r"expected a JSON object, found \[\]"),
        ({"weight_map": ["a.safetensors"]}, r"weight_map is \[.*expected an object"),
        ({"weight_map": {}}, r"weight_map is \{\}; expected an object"),
        ({"weight_map": {"a": 1}}, "weight_map names 1; expected the bare name"),
        ({"weight_map": {"a": "model.bin"}}, "weight_map names 'model.bin'"),
        *(
            ({"weight_map": {"a": name}}, "expected the bare name of a .safetensors")
            for name in (
                "../other/model.safetensors",
                "/model.safetensors",
                "..\\model.safetensors",
                "C:model.safetensors",
                "a/../model.safetensors",
                "a\0.safetensors",
                "",
                "..",
            )
        ),
    ],
)
def test_an_index_that_leads_elsewhere(index, message, fresh_params, tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "other").mkdir()
    for folder in (tmp_path, tmp_path / "other"):
        rewrite(folder, lambda name, tensor: (name, tensor))
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=message) as refused:
        bert_checkpoint.load_pretrained(directory, fresh_params)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_tensor_in_two_shards(fresh_params, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(DIRECTORY / "model.safetensors", tmp_path / name)
    weight_map = {"bert.pooler.dense.bias": "a.safetensors", "x": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        UserError, match=r"b\.safetensors: .* is in the checkpoint twice"
    ):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_a_tensor_under_two_names(fresh_params, tmp_path):
    tensors = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    tensors["pooler.dense.bias"] = tensors["bert.pooler.dense.bias"]
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"pooler\.dense\.bias is in the .* twice"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "bool", "float8_e4m3fn"])
def test_codes_are_no_weights(dtype, fresh_params, tmp_path):
    def quantise(name, tensor):
        return name, tensor.astype(dtype) if name == "classifier.weight" else tensor

    rewrite(tmp_path, quantise)
    with pytest.raises(
        UserError,
        match=r"model\.safetensors: classifier\.weight is of dtype \w+; weights must "
        "be one of F16, BF16, F32, F64",
    ):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_positions_that_old_checkpoints_count(golden_params, fresh_params, tmp_path):
    tensors = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    tensors["bert.embeddings.position_ids"] = np.arange(24)[None]
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    params, fresh, unread = bert_checkpoint.load_pretrained(tmp_path, fresh_params)
    assert (fresh, unread) == ((), ())
    assert_equal(params, golden_params)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", np.nan),
        ("float32", -np.inf),
        ("float16", np.inf),
        ("bfloat16", np.nan),
        ("float64", 1e300),
    ],
)
def test_weights_must_be_finite(dtype, value, fresh_params, tmp_path):
    def spoil(name, tensor):
        if name == "classifier.weight":
            tensor = tensor.astype(dtype)
            tensor[1, 2] = value
        return name, tensor

    rewrite(tmp_path, spoil)
    with pytest.raises(
        UserError,
        match=r"model\.safetensors: of 96 values of classifier\.weight, 1 are NaN or "
        "infinite in float32",
    ):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        (2**60).to_bytes(8, "little") + b"{}",
        *(
            len(header).to_bytes(8, "little") + header + bytes(8)
            for header in (
                b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
                b'{"a": {"dtype": "F\\n", "shape": [1], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}',
            )
        ),
    ],
)
def test_lying_headers_are_refused(content, fresh_params, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is not a safetensors file: ") as refused:
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)
    assert "\n" not in str(refused.value)


def test_folders_and_locked_files_are_one_line(monkeypatch, fresh_params, tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "config.json").mkdir()
    assert hub.fingerprint(str(tmp_path))
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)
    with pytest.raises(UserError, match=r"has no config\.json"):
        bert_checkpoint.read_config(tmp_path)

    # Rights do not bind root, who may be running this.
    def locked(*_args, **_settings):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", locked)
    with pytest.raises(UserError, match=r"config\.json cannot be read: Permission"):
        bert_checkpoint.read_config(DIRECTORY)
    monkeypatch.setattr(Path, "is_file", locked)
    with pytest.raises(UserError, match=r"cannot be read: .*Permission denied"):
        hub.find_file(DIRECTORY, "config.json")


def test_transformers_gives_the_same_logits(bert, golden_params, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    # Other numbers than those that transformers once saved itself.
    params = jax.tree.map(lambda leaf: leaf * 1.25, golden_params)
    bert_checkpoint.save_pretrained(tmp_path, bert, params, labels=LABELS)
    theirs, info = transformers.BertForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values())
    assert theirs.config.id2label == dict(enumerate(LABELS))
    tokens = np.arange(1, 23).reshape(2, 11)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens)).logits
    batch = {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "token_mask": jnp.ones((2, 11), bool),
    }
    logits = bert.build(3).apply(params, batch, None).logits
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-5)


def of_choices(params):
    """With a head of one output."""
    head = jax.tree.map(lambda leaf: leaf[..., :1] * 1.25, params["classifier"])
    return params | {"classifier": head}


def test_choices_are_written_as_transformers_writes_them(
    bert, golden_params, fresh_params, tmp_path
):
    params = of_choices(golden_params)
    bert_checkpoint.save_pretrained(
        tmp_path, bert, params, labels=("choice",), head="MultipleChoice",
        problem_type="single_label_classification",
    )  # fmt: skip
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    assert values["architectures"] == ["BertForMultipleChoice"]
    assert "problem_type" not in values
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    golden = safetensors.numpy.load_file(DIRECTORY / "model.safetensors")
    # Module for module BertForSequenceClassification's, and Linear(width, 1) for head.
    assert tensors.keys() == golden.keys()
    assert tensors["classifier.weight"].shape == (1, 32)
    assert tensors["classifier.bias"].shape == (1,)

    template = of_choices(fresh_params)
    for labels in ({"0": "choice"}, None, {"0": "no", "1": "yes"}):
        values["id2label"], values["label2id"] = labels, None
        path.write_text(json.dumps(values))
        assert bert_checkpoint.read_config(tmp_path) == (bert, ("choice",))
        loaded = bert_checkpoint.load_pretrained(tmp_path, template)
        assert (loaded.fresh, loaded.unread) == ((), ())
        assert_equal(loaded.params, params)


def test_transformers_gives_the_same_logits_of_choices(bert, golden_params, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    params, task = of_choices(golden_params), COPA
    bert_checkpoint.save_pretrained(
        tmp_path, bert, params, labels=task.labels, head=task.head
    )
    theirs, info = transformers.AutoModelForMultipleChoice.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values())
    tokens = np.arange(1, 25).reshape(3, 2, 4)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens)).logits
    batch = {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "token_mask": jnp.ones(tokens.shape, bool),
    }
    logits = task.build(bert).apply(params, batch, None).logits
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_other_number_of_classes_is_named(bert):
    template = jax.eval_shape(bert.build(2).init, jax.random.key(0), {})
    with pytest.raises(UserError) as caught:
        bert_checkpoint.load_pretrained(DIRECTORY, template)
    assert str(caught.value) == (
        f"{DIRECTORY} has 3 classes, the task has 2: "
        "classifier.bias is [3], expected [2]"
    )


def test_a_scalar_has_no_classes(fresh_params, tmp_path):
    def flatten(name, tensor):
        return name, np.asarray(tensor[0]) if name == "classifier.bias" else tensor

    rewrite(tmp_path, flatten)
    with pytest.raises(UserError, match=r"classifier\.bias is \[\], expected \[3\]"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_other_sizes_are_named(bert):
    other = Bert(**vars(bert) | {"vocab_size": 70})
    template = jax.eval_shape(other.build(3).init, jax.random.key(0), {})
    with pytest.raises(
        UserError,
        match=r"embeddings\.word_embeddings\.weight is \[64, 32\], expected \[70, 32\]",
    ):
        bert_checkpoint.load_pretrained(DIRECTORY, template)


def test_fewer_embeddings_than_the_config_has_tokens(tmp_path):
    rewrite(tmp_path, lambda name, tensor: (name, tensor))
    rewrite_config(tmp_path, vocab_size=65)
    template = jax.eval_shape(
        bert_checkpoint.read_config(tmp_path).bert.build(3).init, jax.random.key(0), {}
    )
    with pytest.raises(
        UserError, match=r"embeddings.* is \[64, 32\], expected \[65, 32"
    ):
        bert_checkpoint.load_pretrained(tmp_path, template)


def test_kernels_are_reported_as_the_checkpoint_has_them(bert, tmp_path):
    def widen(name, tensor):
        if name == "bert.encoder.layer.0.intermediate.dense.weight":
            tensor = np.zeros((97, 32), np.float32)
        return name, tensor

    rewrite(tmp_path, widen)
    template = jax.eval_shape(bert.build(3).init, jax.random.key(0), {})
    with pytest.raises(UserError, match=r"weight is \[97, 32\], expected \[96, 32\]"):
        bert_checkpoint.load_pretrained(tmp_path, template)


def test_missing_encoder_tensor_is_named(fresh_params, tmp_path):
    def without_a_query(name, tensor):
        return None if "layer.1.attention.self.query.bias" in name else (name, tensor)

    rewrite(tmp_path, without_a_query)
    with pytest.raises(
        UserError, match=r"lack encoder\.layer\.1\.attention\.self\.query\.bias"
    ):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_pickles_are_refused(fresh_params, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(UserError, match=r"has no model\.safetensors.*save_pretrained"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


def test_damaged_weights_are_refused(fresh_params, tmp_path):
    whole = (DIRECTORY / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="is not a safetensors file"):
        bert_checkpoint.load_pretrained(tmp_path, fresh_params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "electra"}, "model_type is 'electra'; only 'bert'"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"is_decoder": True}, "is_decoder is True; only False"),
        ({"hidden_size": 33}, "width 33 is not divisible by num_heads 2"),
        ({"hidden_size": None}, "has no hidden_size"),
        ({"model_type": ["bert"]}, r"model_type is \['bert'\]; only 'bert'"),
        ({"hidden_size": 32.0}, r"hidden_size is 32\.0; expected a whole number"),
        ({"hidden_size": "32"}, "hidden_size is '32'; expected a whole number"),
        ({"type_vocab_size": True}, "type_vocab_size is True; expected a whole number"),
        ({"vocab_size": -1}, "vocab_size is -1; expected a whole number from 1 to"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000; expected"),
        ({"num_hidden_layers": 10**6}, "is 1000000; .* from 1 to 1024"),
        ({"layer_norm_eps": 10**400}, "layer_norm_eps is 1000.*; expected a small"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps is inf; expected a small"),
        ({"hidden_dropout_prob": [0.1]}, r"hidden_dropout_prob is \[0\.1\]; expected"),
        ({"id2label": "yes"}, "id2label is 'yes'; expected an object"),
        (
            {"id2label": {"0": "n\no"}},
            r"gives 'n\\no' to 0; expected a name of one line",
        ),
        (
            {"id2label": {"0": "no\r"}},
            r"gives 'no\\r' to 0; expected a name of one line",
        ),
        ({"id2label": {"0": "\n"}}, r"gives '\\n' to 0; expected a name of one line"),
        ({"id2label": {"1": "no", "2": "yes"}}, "id2label is .*; expected an object"),
        ({"id2label": {"00": "no"}}, "id2label is .*; expected an object"),
        ({"id2label": {"0": 5}}, "id2label gives 5 to 0; expected a string"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label has 'a' twice"),
        ({"label2id": ["neutral"]}, r"label2id is \['neutral'\]; expected an object"),
        ({"label2id": {"neutral": 0}}, "gives 0 to 'neutral', id2label 1; they must"),
        ({"label2id": {"neutral": 1.0}}, r"gives 1\.0 to 'neutral', id2label 1"),
    ],
)
def test_other_architectures_are_refused(changes, message, tmp_path):
    rewrite_config(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as refused:
        bert_checkpoint.read_config(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}")


@pytest.mark.parametrize("content", ["[]", "3", "null", '"bert"'])
def test_config_must_be_an_object(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="expected a JSON object, found "):
        bert_checkpoint.read_config(tmp_path)


def test_names_on_one_side_only_are_no_contradiction(tmp_path):
    rewrite_config(tmp_path, label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})
    assert bert_checkpoint.read_config(tmp_path).labels == LABELS


def test_config_without_labels_has_two(tmp_path):
    rewrite_config(tmp_path, id2label=None, model_type=None)
    assert bert_checkpoint.read_config(tmp_path).labels == ("LABEL_0", "LABEL_1")


def test_config_must_exist_and_be_json(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        bert_checkpoint.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        bert_checkpoint.read_config(tmp_path)


def test_find_file_on_the_hub(monkeypatch, golden_params, fresh_params, tmp_path):
    requested = []

    def download(name, filename):
        requested.append((name, filename))
        if not (DIRECTORY / filename).exists():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return shutil.copy(DIRECTORY / filename, tmp_path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    params = bert_checkpoint.load_pretrained("someone/tiny-bert", fresh_params).params
    assert_equal(params, golden_params)
    assert bert_checkpoint.read_config("someone/tiny-bert").num_classes == 3
    assert hub.find_file("someone/tiny-bert", "vocab.txt") is None
    assert {name for name, _ in requested} == {"someone/tiny-bert"}
    assert not any(filename.endswith(".bin") for _, filename in requested)
