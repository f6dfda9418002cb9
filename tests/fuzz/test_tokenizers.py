"""Any content of the files that make a tokenizer."""

import copy
import json
import pathlib
import tempfile

import hypothesis
import numpy as np
from fuzz.outcomes import FUZZ, outcome
from fuzz.test_data_files import damaged
from hypothesis import strategies as st

from kd.data import text
from kd.data.text import Sentences

TOKENS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "The", "film", "f", "##ilm", "é", "東", "!"),
]
SENTENCES = Sentences(
    ["The film!", "  É[SEP] 東京 \0 " + "x" * 200], np.zeros(2, np.int32)
)


def sample():
    """The files of a sound tokenizer, the JSON ones as values."""
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "vocab.txt").write_text("".join(f"{t}\n" for t in TOKENS), "utf-8")
        made = text.load(place, lowercase=True)
        made.add_tokens(["a film"])
        text.save(made, place, max_length=16)
        return {
            path.name: json.loads(content) if path.suffix == ".json" else content
            for path in place.iterdir()
            for content in [path.read_text("utf-8")]
        }


SAMPLE = sample()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 16),
    st.sampled_from([2**31, 2**32 - 1, 2**32, 2**64, 10**30, 1.5, float("nan")]),
    st.sampled_from(["", "##", "[UNK]", "[PAD]", "the", "\n", "\ud800", "\0", "東"]),
    st.sampled_from(["BertNormalizer", "Lowercase", "NFD", "Whitespace", "BPE"]),
    st.sampled_from(["WordPiece", "WordLevel", "Sequence", "ByteLevel", "Unigram"]),
    st.sampled_from([{"type": "Lowercase"}, {"type": "Whitespace"}, {"type": "\n"}]),
    st.just({"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
    st.just({"type": "Sequence", "normalizers": [], "pretokenizers": []}),
    st.just([]),
    st.just({}),
)


def places(value):
    """Every container in a JSON value with every key into it."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            yield from places(value[key])


@st.composite
def altered(draw, value):
    """Some values of a JSON value replaced, left out or put under another key."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        found = list(places(value))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        match draw(st.integers(0, 5)):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[draw(st.sampled_from(["", "x", "type", "the", "\n"]))] = (
                    container.pop(key)
                )
            case _:
                container[key] = copy.deepcopy(draw(VALUES))
    return value


@hypothesis.given(st.data())
@hypothesis.settings(FUZZ)
def test_any_tokenizer(data):
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        for name, content in SAMPLE.items():
            kind = data.draw(st.integers(0, 12))
            if kind == 0:
                (place / name).mkdir()
            elif kind > 3 or (kind > 1 and name == "vocab.txt"):
                if name.endswith(".json"):
                    content = json.dumps(data.draw(altered(content)))
                content = content.encode()
                if kind > 9:
                    content = data.draw(damaged(content))
                (place / name).write_bytes(content)

        def used():
            tokenizer = text.load(place, lowercase=True)
            return tokenizer, text.encode(tokenizer, SENTENCES, widths=(16,))

        found = outcome("tokenizers", used)
        if found is None:
            return
        tokenizer, encoded = found
        assert len(encoded) == 2
        assert encoded.tokens.min() >= 0
        assert encoded.tokens.max() < tokenizer.get_vocab_size()
        # What was accepted can be saved, every token in its line.
        text.save(tokenizer, place / "saved")
        lines = (place / "saved/vocab.txt").read_bytes().decode().split("\n")
        # Not by `id_to_token`, which answers with what an added token is normalised to.
        found = [tokenizer.token_to_id(token) for token in lines[:-1]]
        assert found == list(range(tokenizer.get_vocab_size()))
        again = text.load(place / "saved", lowercase=False)
        assert text.fingerprint(again) == text.fingerprint(tokenizer)
