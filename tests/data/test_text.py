import json
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
    return text.WordPiece(size=300).build(records.texts)


def test_training_gives_the_same_vocabulary_in_another_process(tokenizer):
    # Hash tables of the library are seeded anew in every process.
    program = """
from kd.data import sentiment, text
texts, _ = zip(*sentiment.corpus()[0][:1500])
print(text.fingerprint(text.WordPiece(size=300).build(list(texts))))
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


def put(folder, *, tokens=None, config=None, description=None):
    """A checkpoint's vocab.txt, tokenizer_config.json and tokenizer.json."""
    if tokens is not None:
        (folder / "vocab.txt").write_text("".join(f"{t}\n" for t in tokens), "utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if description is not None:
        (folder / "tokenizer.json").write_text(json.dumps(description))
    return folder


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENS = [*SPECIAL, "The", "the", "é", "e", "東", "京", "##京", "f", "##ilm"]


def words(tokenizer, sentence):
    return tokenizer.encode(sentence).tokens[1:-1]


def refused(folder, *, lowercase=True):
    with pytest.raises(UserError) as caught:
        text.load(folder, lowercase=lowercase)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("kept", ["vocab.txt", "tokenizer.json"])
def test_saved_and_loaded(records, tmp_path, kept, lowercase):
    made = text.train(records.texts, size=300, lowercase=lowercase)
    text.save(made, tmp_path)
    for name in {"vocab.txt", "tokenizer.json"} - {kept}:
        (tmp_path / name).unlink()
    # The folder says what happens to case, whatever the caller expects.
    loaded = text.load(tmp_path, lowercase=not lowercase)
    assert text.fingerprint(loaded) == text.fingerprint(made)
    for sentence in [*records.texts[:50], "Unseen Größe, naïve: 東京!"]:
        assert loaded.encode(sentence).ids == made.encode(sentence).ids


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (None, ["the", "e", "東", "京"]),
        ({}, ["the", "e", "東", "京"]),
        ({"do_lower_case": True}, ["the", "e", "東", "京"]),
        ({"strip_accents": None}, ["the", "e", "東", "京"]),
        ({"do_lower_case": False}, ["The", "é", "東", "京"]),
        ({"do_lower_case": True, "strip_accents": False}, ["the", "é", "東", "京"]),
        ({"do_lower_case": False, "strip_accents": True}, ["The", "e", "東", "京"]),
        ({"tokenize_chinese_chars": False}, ["the", "e", "東", "##京"]),
    ],
)
def test_the_folder_says_what_happens_to_a_text(tmp_path, config, found):
    put(tmp_path, tokens=TOKENS, config=config)
    # The argument is for a vocab.txt alone.
    loaded = text.load(tmp_path, lowercase=config is None)
    assert words(loaded, "The é 東京") == found
    # And so does what is saved, with or without tokenizer.json.
    text.save(loaded, tmp_path / "saved")
    saved = tmp_path / "saved"
    for _ in range(2):
        again = text.load(saved, lowercase=False)
        assert text.fingerprint(again) == text.fingerprint(loaded)
        (saved / "tokenizer.json").unlink(missing_ok=True)
    written = json.loads((saved / "tokenizer_config.json").read_text())
    expected = {
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
    }
    expected |= config or {}
    assert {key: written[key] for key in expected} == expected


def test_the_case_of_a_vocabulary_alone_is_the_callers_word(tmp_path):
    put(tmp_path, tokens=TOKENS)
    assert words(text.load(tmp_path, lowercase=False), "The") == ["The"]


def test_the_configuration_that_is_saved(tmp_path):
    tokens = [t for t in TOKENS if t != "[MASK]"]
    loaded = text.load(put(tmp_path, tokens=tokens), lowercase=True)
    text.save(loaded, tmp_path, max_length=64)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        # Named, it would get an id that has no embedding.
        "mask_token": None,
        "model_max_length": 64,
    }
    text.save(loaded, tmp_path)
    assert "model_max_length" not in (tmp_path / "tokenizer_config.json").read_text()


def test_a_tokenizer_that_is_more_than_its_vocabulary(tmp_path):
    description = json.loads(text.load(vocabulary(tmp_path), lowercase=True).to_str())
    description["normalizer"] = {"type": "Lowercase"}
    put(tmp_path, description=description)
    loaded = text.load(tmp_path, lowercase=False)
    assert words(loaded, "The é") == ["the", "é"]
    text.save(loaded, tmp_path / "saved")
    # As BertTokenizer, transformers would strip accents.
    written = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "do_lower_case" not in written
    put(tmp_path, config={"do_lower_case": False})
    assert "do_lower_case is false" in refused(tmp_path)


def vocabulary(folder):
    return put(folder, tokens=TOKENS)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"do_lower_case": False}, "do_lower_case is false"),
        ({"strip_accents": False}, "strip_accents is false"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is false"),
        ({"do_lower_case": True, "strip_accents": None}, None),
        ({"do_lower_case": True, "strip_accents": True}, None),
        ({"model_max_length": 512}, None),
    ],
)
def test_two_files_that_contradict_each_other(tmp_path, config, key):
    text.save(text.load(vocabulary(tmp_path), lowercase=True), tmp_path)
    put(tmp_path, config=config)
    if key is None:
        assert words(text.load(tmp_path, lowercase=False), "The é") == ["the", "e"]
    else:
        line = refused(tmp_path)
        assert f"tokenizer_config.json: {key}" in line
        assert "tokenizer.json has true; they must agree" in line


@pytest.mark.parametrize("key", ["do_lower_case", "tokenize_chinese_chars"])
@pytest.mark.parametrize("value", [None, "false", 0, [True]])
def test_settings_that_are_neither_true_nor_false(tmp_path, key, value):
    put(vocabulary(tmp_path), config={key: value})
    assert f"tokenizer_config.json: {key} is {json.dumps(value)}; expected" in refused(
        tmp_path
    )


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([*TOKENS, "the"], "vocab.txt:15: the token 'the' is that of line 7"),
        ([*TOKENS, "", "x", ""], "vocab.txt:17: the token '' is that of line 15"),
        (["[UNK]", "[SEP]"], "the vocabulary lacks [PAD], [CLS]"),
        ([], "the vocabulary lacks [PAD], [UNK], [CLS], [SEP]"),
    ],
)
def test_lines_that_are_no_vocabulary(tmp_path, tokens, line):
    assert line in refused(put(tmp_path, tokens=tokens))


def test_every_line_is_a_token(tmp_path):
    # As transformers has it: a blank line too, white space too.
    tokens = [*TOKENS, "", "x ", "x", "y\u2028z", "last"]
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(tokens).encode())
    loaded = text.load(tmp_path, lowercase=True)
    assert [loaded.id_to_token(i) for i in range(len(tokens))] == tokens
    text.save(loaded, tmp_path)
    assert (tmp_path / "vocab.txt").read_text("utf-8").split("\n") == [*tokens, ""]


def test_added_tokens_take_part(tmp_path):
    loaded = text.load(vocabulary(tmp_path), lowercase=True)
    loaded.add_tokens(["the film"])
    text.save(loaded, tmp_path)
    assert (tmp_path / "vocab.txt").read_text("utf-8").split("\n")[14] == "the film"
    again = text.load(tmp_path, lowercase=True)
    assert again.encode("the film").ids == [2, 14, 3]


def test_special_tokens_are_special_though_nothing_says_so(tmp_path):
    description = json.loads(text.load(vocabulary(tmp_path), lowercase=True).to_str())
    description["added_tokens"] = []
    put(tmp_path, description=description)
    assert words(text.load(tmp_path, lowercase=True), "the[SEP]the") == [
        "the", "[SEP]", "the",
    ]  # fmt: skip


def gap(description):
    del description["model"]["vocab"]["é"]


def twice(description):
    description["model"]["vocab"]["é"] = 6


def beyond(description):
    description["model"]["vocab"]["##ilm"] = 2**32 - 1


def no_number(description):
    description["model"]["vocab"]["é"] = "7"


def added_beyond(description):
    description["added_tokens"].append(
        description["added_tokens"][0] | {"id": 90, "content": "new"}
    )


def line_break(description):
    description["model"]["vocab"]["a\nb"] = len(TOKENS)


def another_model(description):
    description["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


def no_model(description):
    del description["model"]


def another_unknown(description):
    description["model"]["unk_token"] = "<unk>"


def no_such_normalizer(description):
    description["normalizer"] = {"type": "no\nsuch"}


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (gap, "no token has the id 7, though there are 13"),
        (twice, "no token has the id 7, though there are 14; the ids must be 0 to 13"),
        (beyond, "no token has the id 13"),
        (no_number, "no token has the id 7"),
        (added_beyond, "the added token 'new' has the id 90; expected 14"),
        (line_break, r"the token 'a\nb' has a line break"),
        (another_model, 'got the type "BPE"'),
        (no_model, "got the type null"),
        (another_unknown, "the unk_token, '<unk>', is not in the vocabulary"),
        (no_such_normalizer, "is not a tokenizer: "),
    ],
)
def test_descriptions_that_are_no_tokenizer(tmp_path, damage, line):
    description = json.loads(text.load(vocabulary(tmp_path), lowercase=True).to_str())
    damage(description)
    found = refused(put(tmp_path, description=description))
    assert found.startswith("tokenizer.json")
    assert line in found


def test_a_description_that_does_not_name_its_model(tmp_path):
    description = json.loads(text.load(vocabulary(tmp_path), lowercase=True).to_str())
    del description["model"]["type"]
    put(tmp_path, description=description)
    assert words(text.load(tmp_path, lowercase=True), "The") == ["the"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{", " is not JSON: "),
        (b"", " is not JSON: "),
        (b"[" * 100_000, " is nested too deeply"),
        (b"[1]", ": expected a JSON object"),
        (b'{\n"\xff": 1}', ":2: not UTF-8 ("),
        (None, " is not a file; "),
    ],
)
def test_damaged_files(tmp_path, name, content, line):
    vocabulary(tmp_path)
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    assert name + line in refused(tmp_path)


def test_damaged_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\n")
    assert "vocab.txt:2: not UTF-8" in refused(tmp_path)


def test_directory_without_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"expected vocab\.txt or tokenizer\.json"):
        text.load(tmp_path, lowercase=True)


def test_published_vocabulary(shared_data, tmp_path):
    import lzma

    packed = (shared_data / "vocab" / "bert-base-uncased" / "vocab.txt.xz").read_bytes()
    (tmp_path / "vocab.txt").write_bytes(lzma.decompress(packed))
    tokenizer = text.load(tmp_path, lowercase=True)
    assert tokenizer.get_vocab_size() == 30522
    # The ids that BERT's own tokenizer gives.
    assert tokenizer.encode("Hello, world!").ids == [101, 7592, 1010, 2088, 999, 102]
