import subprocess
import sys

import numpy as np
import pytest

from kd.data import sentiment, text
from kd.data.text import Sentences
from kd.errors import UserError


@pytest.fixture(scope="module")
def records():
    train, _ = sentiment.corpus()
    texts, labels = zip(*train[:1500], strict=True)
    return Sentences(list(texts), np.array(labels, np.int32))


@pytest.fixture(scope="module")
def tokenizer(records):
    return text.WordPiece(size=300).build(records)


def test_training_gives_the_same_vocabulary_in_another_process(tokenizer):
    # Hash tables of the library are seeded anew in every process.
    program = """
import numpy as np
from kd.data import sentiment, text
from kd.data.text import Sentences
texts, labels = zip(*sentiment.corpus()[0][:1500])
records = Sentences(list(texts), np.array(labels, np.int32))
print(text.fingerprint(text.WordPiece(size=300).build(records)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == text.fingerprint(tokenizer)


def test_special_tokens_come_first_and_padding_is_zero(tokenizer):
    assert [tokenizer.id_to_token(i) for i in range(4)] == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]",
    ]  # fmt: skip
    assert tokenizer.get_vocab_size() <= 300


def test_encoding_and_its_inverse(tokenizer, records):
    encoded = text.encode(tokenizer, records, widths=(64,))
    assert len(encoded) == len(records)
    for i in range(0, 1500, 97):
        ids = encoded.tokens[encoded.offsets[i] : encoded.offsets[i + 1]].tolist()
        assert ids == tokenizer.encode(records.texts[i]).ids
        assert ids[0] == tokenizer.token_to_id("[CLS]")
        assert ids[-1] == tokenizer.token_to_id("[SEP]")


def test_long_examples_keep_their_separator(tokenizer):
    records = Sentences(["a " * 100], np.zeros(1, np.int32))
    encoded = text.encode(tokenizer, records, widths=(12,))
    assert encoded.lengths.tolist() == [12]
    assert encoded.tokens[-1] == tokenizer.token_to_id("[SEP]")


def test_pairs_have_two_segments(tokenizer):
    records = Sentences(["good film"], np.zeros(1, np.int32), pairs=["bad film"])
    encoded = text.encode(tokenizer, records, widths=(32,))
    assert encoded.paired
    separator = tokenizer.token_to_id("[SEP]")
    end = int(np.flatnonzero(encoded.tokens == separator)[0])
    assert encoded.segments.tolist() == [0] * (end + 1) + [1] * (
        len(encoded.tokens) - end - 1
    )


@pytest.mark.parametrize("kept", ["vocab.txt", "tokenizer.json"])
def test_saved_and_loaded(tokenizer, records, tmp_path, kept):
    text.save(tokenizer, tmp_path)
    for path in tmp_path.iterdir():
        if path.name != kept:
            path.unlink()
    loaded = text.load(tmp_path, lowercase=True)
    for sentence in [*records.texts[:50], "Unseen Größe, naïve: 東京!"]:
        assert loaded.encode(sentence).ids == tokenizer.encode(sentence).ids


def test_directory_without_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"expected vocab\.txt or tokenizer\.json"):
        text.load(tmp_path, lowercase=True)


def test_vocabulary_without_special_tokens(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n[UNK]\n[SEP]\n")
    with pytest.raises(UserError, match=r"lacks \[PAD\], \[CLS\]"):
        text.load(tmp_path, lowercase=True)


def test_published_vocabulary(shared_data, tmp_path):
    import lzma

    packed = (shared_data / "vocab" / "bert-base-uncased" / "vocab.txt.xz").read_bytes()
    (tmp_path / "vocab.txt").write_bytes(lzma.decompress(packed))
    tokenizer = text.load(tmp_path, lowercase=True)
    assert tokenizer.get_vocab_size() == 30522
    # The ids that BERT's own tokenizer gives.
    assert tokenizer.encode("Hello, world!").ids == [101, 7592, 1010, 2088, 999, 102]
