"""Packing loses no token and no byte; documents and splits are where they should be."""

import dataclasses

import numpy as np
import pytest

from kd.data import byte_bpe, sources
from kd.data.byte_bpe import ByteBPE
from kd.data.language import LanguageTask
from kd.errors import UserError
from kd.models.bert import Bert
from kd.models.llama import Llama
from kd.objective import CrossEntropy

TEXT = "".join(
    f"# Title: {i}\nÆther and naïveté, 漢字 {i * 7919}.\r\n\tTabs  and <|endoftext|>.\n"
    for i in range(12)
)


@pytest.fixture
def task(tmp_path):
    (tmp_path / "data/lore").mkdir(parents=True)
    (tmp_path / "data/lore/all.txt").write_bytes(TEXT.encode())
    return LanguageTask(
        name="lore",
        files=("all.txt",),
        begins="^# Title:",
        dev_share=0.25,
        tokenizer=ByteBPE(size=300),
        length=16,
        directory=str(tmp_path / "data"),
    )


def prepared(task, tmp_path):
    corpus = sources.load(task)
    return corpus, task.prepare(corpus, tmp_path / "model")


def test_documents_are_the_whole_text_and_none_is_in_two_splits(task):
    corpus = sources.load(task)
    assert (len(corpus.train), len(corpus.dev), corpus.test) == (9, 3, None)
    assert "".join(corpus.train.documents + corpus.dev.documents) == TEXT
    assert all(d.startswith("# Title:") for d in corpus.dev.documents)
    one = dataclasses.replace(task, begins="")
    whole = sources.load(one)
    assert whole.train.documents[0] + whole.dev.documents[0] == TEXT
    assert whole.train.documents[0].endswith("\n")


def test_files_of_dev_and_test(task, tmp_path):
    folder = tmp_path / "data/lore"
    for name in ("dev", "test"):
        (folder / f"{name}.txt").write_text(f"{name}\n# Title: x\nmore of {name}")
    three = dataclasses.replace(task, files=("all.txt", "dev.txt", "test.txt"))
    corpus = sources.load(three)
    assert len(corpus.train) == 12
    # What stands before the first title goes with it.
    assert corpus.dev.documents == ["dev\n# Title: x\nmore of dev"]
    assert corpus.test is not None
    assert corpus.test.documents == ["test\n# Title: x\nmore of test"]
    two = sources.load(dataclasses.replace(task, files=("all.txt", "test.txt")))
    assert two.test is not None
    assert (len(two.train), len(two.dev), len(two.test)) == (9, 3, 1)


def test_every_token_is_predicted_once_from_those_before_it(task, tmp_path):
    corpus, data = prepared(task, tmp_path)
    tokenizer = byte_bpe.load(tmp_path / "model")
    for records, split in ((corpus.train, data.train), (corpus.dev, data.dev)):
        rows = split.inputs(np.arange(len(split)))
        there = rows["prediction_mask"]
        np.testing.assert_array_equal(there, split.labels >= 0)
        stream = rows["labels"][there]
        # Each document, then an end, which is token 0; one that a text names is text.
        ends = np.flatnonzero(stream == 0)
        assert len(ends) == len(records) and ends[-1] == len(stream) - 1
        parts = np.split(stream, ends + 1)[:-1]
        found = [tokenizer.decode(part[:-1].tolist()) for part in parts]
        assert found == records.documents
        # A row reads what it predicts, one later; the first token is an end.
        read = rows["tokens"][there]
        np.testing.assert_array_equal(read[1:], stream[:-1])
        assert read[0] == 0
        # Only the last row is padded, on the right.
        assert there[:-1].all() and (np.diff(there[-1].astype(int)) <= 0).all()
        num_bytes = sum(len(d.encode()) for d in records.documents)
        assert rows["num_bytes"].sum() == num_bytes
        assert (rows["num_bytes"][there] == 0).sum() == len(records)


def test_dev_rows_are_the_first(task, tmp_path):
    _, data = prepared(task, tmp_path)
    _, few = prepared(dataclasses.replace(task, dev_rows=2), tmp_path)
    assert len(few.dev) == 2 and len(few.train) == len(data.train)
    np.testing.assert_array_equal(few.dev.labels, data.dev.labels[:2])
    assert few.dev.content() != data.dev.content()


def test_a_network_brings_its_tokenizer_and_its_end(task, tmp_path):
    tokenizer = byte_bpe.train([TEXT], size=280)
    other = tmp_path / "other"
    byte_bpe.save(tokenizer, other)
    corpus = sources.load(task)
    task.put_preprocessing(corpus, tmp_path / "student", adopt=str(other))
    assert task.preprocessing(tmp_path / "student") == task.preprocessing(other)
    assert task.special_tokens(tmp_path / "student").end == (0,)
    data = task.encode(corpus, tmp_path / "student")
    assert data.vocab_size == 280


def test_prompts_are_beginnings_of_rows(task, tmp_path):
    _, data = prepared(task, tmp_path)
    prompts = task.prompts(data.train, tmp_path / "model", 3)
    assert len(prompts) == 3
    stream = [*data.train.stream.tolist()]
    for ids, shown, reference in zip(
        prompts.tokens.tolist(), prompts.shown, prompts.references, strict=True
    ):
        (start,) = (i for i in range(0, len(stream), 16) if stream[i : i + 4] == ids)
        assert prompts.decode(ids) == shown
        assert prompts.decode(stream[start + 4 : start + 16]) == reference


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 1}, "length must be at least 2"),
        ({"files": ()}, "files needs one to three names"),
        ({"begins": "("}, "begins is no regular expression"),
        ({"dev_share": 1.0}, r"dev_share must lie in \(0, 1\)"),
        ({"label_noise": 0.1}, "the target is text; it must be 0"),
    ],
)
def test_settings_that_make_no_sense(task, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, **fields)


def test_networks_that_cannot_read_it(task):
    with pytest.raises(ValueError, match="student is a Bert, which does not write on"):
        task.check(Bert.tiny(), "student")
    with pytest.raises(ValueError, match=r"data.length, 16, exceeds student.max_len"):
        task.check(Llama(max_length=8), "student")


def test_files_that_are_no_text(task, tmp_path):
    path = tmp_path / "data/lore/all.txt"
    path.write_bytes(b"fine\n\xff\n")
    with pytest.raises(UserError, match=r"all.txt:2: not UTF-8"):
        sources.load(task)
    path.write_text("\n\n")
    with pytest.raises(UserError, match=r"all.txt: there is no text"):
        sources.load(task)


def test_a_loss_of_single_predictions_is_named():
    assert CrossEntropy().of_tokens is False
