"""Byte-level BPE tokenizers: any text comes back, and what is none is one line."""

import json
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from kd.data import byte_bpe
from kd.data.byte_bpe import END, ByteBPE
from kd.errors import UserError

ROOT = Path(__file__).parents[2]
TEXTS = ["low lower lowest", "new newer newest", "the lowest of the new, 1999"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return byte_bpe.train(TEXTS, size=300)


@hypothesis.given(st.text())
def test_any_text_comes_back(tokenizer, text):
    encoding = tokenizer.encode(text)
    hypothesis.assume(END not in text)
    assert tokenizer.decode(encoding.ids) == text
    assert byte_bpe.num_ids(tokenizer) <= 300


def test_frequent_words_are_one_token(tokenizer):
    assert tokenizer.encode("the lowest").tokens == ["the", "Ġlowest"]
    assert tokenizer.token_to_id(END) == 0
    assert tokenizer.encode(f"new{END}").ids[-1] == 0


def test_training_again_gives_the_same(tokenizer):
    program = (
        "from kd.data import byte_bpe; from tests.data import test_byte_bpe as t; "
        "print(byte_bpe.train(t.TEXTS, size=300).to_str())"
    )
    again = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=True,
    )  # fmt: skip
    assert json.loads(again.stdout) == json.loads(tokenizer.to_str())


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    byte_bpe.save(tokenizer, tmp_path, max_length=64)
    assert byte_bpe.load(tmp_path).to_str() == tokenizer.to_str()
    assert ByteBPE(vocabulary=str(tmp_path)).build([]).to_str() == tokenizer.to_str()
    assert ByteBPE(size=300).build(TEXTS).to_str() == tokenizer.to_str()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["model_max_length"]) == (END, 64)
    with pytest.raises(ValueError, match=r"the vocabulary lacks '<\|end\|>'"):
        byte_bpe.save(tokenizer, tmp_path, end="<|end|>")


def test_padding_and_cutting_are_not_taken_over(tokenizer, tmp_path):
    other = byte_bpe.train(TEXTS, size=300)
    other.enable_truncation(2)
    other.enable_padding(length=9)
    byte_bpe.save(other, tmp_path)
    text = "the lowest of the newest"
    assert byte_bpe.load(tmp_path).encode(text).ids == tokenizer.encode(text).ids


def test_transformers_gives_the_same_ids(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    byte_bpe.save(tokenizer, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the lowest, 1999", f" new{END}er\n\n", "é 東京"):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
    assert theirs.eos_token_id == theirs.pad_token_id == 0


def test_too_small_a_vocabulary():
    with pytest.raises(
        ValueError, match="size is 256, must be more than the 256 bytes"
    ):
        byte_bpe.train(TEXTS, size=256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Unigram"}}, 'got the model "Unigram"'),
        ({"model": None}, "got the model null"),
        ({"decoder": {"type": "WordPiece"}}, 'a "decoder" of the type "ByteLevel"'),
        ({"decoder": None}, 'a "decoder" of the type "ByteLevel"'),
        ({"pre_tokenizer": {"type": "None such"}}, "is not a tokenizer: "),
    ],
)
def test_other_tokenizers_are_refused(change, message, tokenizer, tmp_path):
    byte_bpe.save(tokenizer, tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as refused:
        byte_bpe.load(tmp_path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_none_there(tmp_path):
    with pytest.raises(
        UserError, match=r"no tokenizer there; expected tokenizer\.json"
    ):
        byte_bpe.load(tmp_path)
