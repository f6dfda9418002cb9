"""Unigram tokenizers: the likeliest pieces, and one line for what is none."""

import itertools
import json
import math

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from kd.data import byte_bpe, unigram
from kd.errors import UserError

SCORES = {
    "<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0, "▁low": -3.5, "er": -3.0,
    "l": -4.0, "o": -4.2, "w": -4.1, "e": -3.9, "r": -4.3, "lo": -5.1, "▁l": -5.0,
    "we": -4.4,
}  # fmt: skip


@pytest.fixture
def tokenizer():
    made = tokenizers.Tokenizer(models.Unigram(list(SCORES.items()), unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return made


@pytest.fixture
def directory(tokenizer, tmp_path):
    unigram.save(tokenizer, tmp_path, max_length=64)
    return tmp_path


def rewrite(directory, **model):
    path = directory / "tokenizer.json"
    description = json.loads(path.read_text())
    description["model"] |= model
    path.write_text(json.dumps(description))


@hypothesis.given(st.text(alphabet="lower", min_size=1, max_size=9))
def test_the_pieces_are_those_of_the_best_score(word):
    made = tokenizers.Tokenizer(models.Unigram(list(SCORES.items()), unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    text, best = "▁" + word, -math.inf
    for cuts in itertools.product((False, True), repeat=len(word)):
        pieces, start = [], 0
        for i, cut in enumerate((*cuts, True), 1):
            if cut:
                pieces.append(text[start:i])
                start = i
        if all(piece in SCORES for piece in pieces):
            best = max(best, sum(SCORES[piece] for piece in pieces))
    found = made.encode(word).tokens
    assert "".join(found) == text
    assert sum(SCORES[piece] for piece in found) == pytest.approx(best)


def test_a_checkpoint_is_read(directory, tokenizer):
    found = unigram.load(directory)
    assert found.to_str() == tokenizer.to_str()
    assert found.encode("lower low").tokens == ["▁low", "er", "▁low", "</s>"]
    assert found.encode("lox").ids[-2:] == [2, 1]
    assert found.decode(found.encode("lower low").ids) == "lower low"
    assert byte_bpe.num_ids(found) == len(SCORES)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["pad_token"]) == ("</s>", "<pad>")
    assert config["model_max_length"] == 64
    with pytest.raises(ValueError, match="the vocabulary lacks '<end>'"):
        unigram.save(tokenizer, directory, end="<end>")


def test_kinds_are_told_apart(directory, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    byte_bpe.save(byte_bpe.train(["low"], size=260), other)
    assert unigram.is_in(directory) and not unigram.is_in(other)
    assert not unigram.is_in(tmp_path_factory.mktemp("none"))
    with pytest.raises(UserError, match=r'of the type "Unigram", got the type "BPE"'):
        unigram.load(other)
    with pytest.raises(UserError, match='expected a "model" of the type "BPE"'):
        byte_bpe.load(directory)


def test_padding_and_cutting_are_not_taken_over(tokenizer, tmp_path):
    ids = tokenizer.encode("lower low").ids
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    unigram.save(tokenizer, tmp_path)
    assert unigram.load(tmp_path).encode("lower low").ids == ids


def test_transformers_gives_the_same_ids(directory, tokenizer):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    for text in ("lower low", " low  er", "東京", "low</s>er"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
    assert (theirs.eos_token_id, theirs.pad_token_id) == (1, 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"vocab": []}, r"vocab is \[\]; expected a list of pieces"),
        ({"vocab": {"a": 0}}, r"vocab is {'a': 0}; expected a list of pieces"),
        ({"vocab": [["a", 0], ["b"]]}, r"entry 1 of vocab is \['b'\]; expected a pi"),
        ({"vocab": [["a", "0"]]}, r"entry 0 of vocab is \['a', '0'\]"),
        ({"vocab": [["a", 0], ["a", 1]]}, "vocab has 'a' twice"),
        ({"unk_id": 99}, "unk_id is 99; expected a number from 0 to 13"),
        ({"unk_id": True}, "unk_id is True; expected a number"),
        ({"type": "WordLevel"}, r'of the type "Unigram", got the type "WordLevel"'),
    ],
)
def test_what_is_damaged_is_refused(directory, model, message):
    rewrite(directory, **model)
    with pytest.raises(UserError, match=message):
        unigram.load(directory)


def test_what_the_library_refuses_is_one_line(directory):
    path = directory / "tokenizer.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"pre_tokenizer": {"type": "Other"}}))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: "):
        unigram.load(directory)


def test_none_there(tmp_path):
    with pytest.raises(UserError, match=r"expected tokenizer\.json$"):
        unigram.load(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"spiece\.model is not read, convert it with"):
        unigram.load(tmp_path)
