import dataclasses
import gzip
import lzma
import os
import pathlib
import re

import numpy as np
import pytest

from kd.data import sentiment, sources, tfds
from kd.data.glue import SST2
from kd.data.sentences import TextTask
from kd.errors import UserError
from kd.evaluate.classes import Classes

GLUE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "glue"
HEADER = "sentence\tlabel\n"

RTE = TextTask(
    name="RTE",
    target=Classes(("entailment", "not_entailment")),
    columns=("sentence1", "sentence2"),
    label_column="label",
    tfds="glue/rte",
    tfds_features=("sentence1", "sentence2"),
    url="https://dl.fbaipublicfiles.com/glue/data/RTE.zip",
)


def write(directory, train=HEADER + "good \t1\n", dev=HEADER + "bad \t0\n"):
    """An SST-2 folder; returns the task that reads it."""
    folder = directory / "SST-2"
    folder.mkdir()
    for split, text in {"train": train, "dev": dev}.items():
        if text is not None:
            content = text if isinstance(text, bytes) else text.encode()
            (folder / f"{split}.tsv").write_bytes(content)
    return dataclasses.replace(SST2, directory=str(directory))


def message(task):
    with pytest.raises(UserError) as caught:
        sources.load(task)
    (line,) = str(caught.value).splitlines()
    return line


# What a good folder gives.


def test_local_records(tmp_path):
    train = HEADER + 'a "quoted" film \t1\r\ncafé\u2028bar\t0\nlast row\t1'
    corpus = sources.load(write(tmp_path, train=train))
    assert corpus.train.texts == ['a "quoted" film', "café\u2028bar", "last row"]
    assert corpus.train.pairs is None
    assert corpus.train.labels.tolist() == [1, 0, 1]
    assert corpus.train.labels.dtype == np.int32
    assert (corpus.dev.texts, corpus.dev.labels.tolist()) == (["bad"], [0])
    assert corpus.source == "local"
    assert corpus.origin == "local SST-2 (3 train, 1 dev)"
    assert corpus.directory == str(tmp_path)
    assert corpus.notice == ""


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_compressed_files_read_like_plain_ones(tmp_path, suffix, compress):
    task = write(tmp_path)
    plain = sources.load(task)
    for path in list((tmp_path / "SST-2").iterdir()):
        path.with_name(path.name + suffix).write_bytes(compress(path.read_bytes()))
        path.unlink()
    assert sources.load(task).fingerprint == plain.fingerprint


def test_a_byte_order_mark_is_no_text(tmp_path):
    corpus = sources.load(write(tmp_path, train=("\ufeff" + HEADER + "x\t1").encode()))
    assert corpus.train.texts == ["x"]


def test_columns_go_by_name(tmp_path):
    train = "index\tlabel\tsentence\n7\tnegative\tsad\n8\t1\tglad\n"
    corpus = sources.load(write(tmp_path, train=train))
    assert corpus.train.texts == ["sad", "glad"]
    assert corpus.train.labels.tolist() == [0, 1]


def test_pairs(tmp_path):
    (tmp_path / "RTE").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "RTE" / f"{split}.tsv").write_text(
            "index\tsentence1\tsentence2\tlabel\n0\tA b.\tB.\tnot_entailment\n"
        )
    train = sources.load(dataclasses.replace(RTE, directory=str(tmp_path))).train
    assert (train.texts, train.pairs, len(train)) == (["A b."], ["B."], 1)
    assert train.labels.tolist() == [1]


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(sources.load(dataclasses.replace(SST2, directory="~")).train) == 1


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = set()
    for number, rows in enumerate(
        ["a b\t0\nc\t1\n", "a\t0\nb c\t1\n", "a b\t1\nc\t1\n", "c\t1\na b\t0\n"]
    ):
        (directory := tmp_path / str(number)).mkdir()
        prints.add(sources.load(write(directory, train=HEADER + rows)).fingerprint)
    assert len(prints) == 4
    (again := tmp_path / "again").mkdir()
    same = sources.load(write(again, train=HEADER + "a b\t0\r\nc\t1\n"))
    assert same.fingerprint in prints
    assert re.fullmatch("[0-9a-f]{64}", same.fingerprint)


# What a bad one gets.


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (
            "sentence\tscore\nx\t1\n",
            ":1: the header has the columns 'sentence', 'score';"
            " expected 'sentence', 'label'",
        ),
        (
            HEADER + "x\t1\ny 1\n",
            ":3: 1 fields between tabs; expected 2, 'sentence', 'label'",
        ),
        (HEADER + "x\ty\t1\n", ":2: 3 fields between tabs"),
        (HEADER + "x\t1\n\ny\t1\n", ":3: 1 fields between tabs"),
        (
            HEADER + "x\tgood\n",
            ":2: label 'good'; expected 0 to 1 or 'negative', 'positive'",
        ),
        (HEADER + "x\t2\n", ":2: label '2'; expected 0 to 1"),
        (HEADER + "x\t-1\n", ":2: label '-1'; expected 0 to 1"),
        (HEADER + "x\t\n", ":2: label ''; expected 0 to 1"),
        (HEADER + "x\t1\n \t1\n", ":3: empty sentence"),
        (HEADER.encode() + b"x\t1\ncaf\xe9\t1\n", ":3: not UTF-8"),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"\xff\t1\n", ":2: not UTF-8"),
        ((HEADER + "x\t1\n").encode("utf-16"), ":1: not UTF-8"),
        ("", ": no examples"),
        ("\n", ": no examples"),
        (HEADER, ": no examples"),
    ],
)
def test_malformed_content(tmp_path, train, expected):
    line = message(write(tmp_path, train=train))
    assert line.startswith(f"{tmp_path}/SST-2/train.tsv{expected}")


def test_dev_is_checked_as_train_is(tmp_path):
    line = message(write(tmp_path, dev=HEADER + "x\t3\n"))
    assert line.startswith(f"{tmp_path}/SST-2/dev.tsv:2: label '3'")


def test_long_and_unprintable_content_stays_one_line(tmp_path):
    line = message(write(tmp_path, train="\x1b[31m\r" + "x" * 9999 + "\n1\t1\n"))
    assert line.isprintable()
    assert len(line) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_file(tmp_path, split):
    line = message(write(tmp_path, **{split: None}))
    assert line == f"{tmp_path}/SST-2/{split}.tsv: no such file, nor with .gz or .xz"


def test_a_missing_task_folder(tmp_path):
    for name in ("RTE", "CoLA"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev.tsv.xz").touch()
    (tmp_path / "other").mkdir()
    line = message(dataclasses.replace(SST2, directory=str(tmp_path)))
    assert line == (
        f"no SST-2 folder in {tmp_path}; expected {tmp_path}/SST-2/train.tsv"
        " (.gz, .xz); folders there: CoLA, RTE, other"
    )


def test_a_missing_directory(tmp_path):
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        line = message(dataclasses.replace(SST2, directory=str(tmp_path / name)))
        assert line == f"DATA_DIR {tmp_path}/{name} is not a folder"


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_damaged_archives(tmp_path, suffix, compress):
    task = write(tmp_path)
    path = tmp_path / "SST-2" / "train.tsv"
    whole = compress(path.read_bytes() * 99)
    flipped = whole[:24] + bytes([whole[24] ^ 255]) + whole[25:]
    path.unlink()
    path = path.with_name("train.tsv" + suffix)
    for content in (whole[:-9], b"plain text", flipped):
        path.write_bytes(content)
        assert message(task).startswith(f"{path}: damaged {suffix} file (")


def test_a_folder_in_place_of_a_file(tmp_path):
    task = write(tmp_path, train=None)
    (tmp_path / "SST-2" / "train.tsv").mkdir()
    assert message(task) == f"{tmp_path}/SST-2/train.tsv: Is a directory"


@pytest.mark.parametrize("locked", ["SST-2/train.tsv", "SST-2"])
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path, locked):
    task = write(tmp_path)
    (tmp_path / locked).chmod(0)
    try:
        assert message(task) == f"{tmp_path}/SST-2/train.tsv: Permission denied"
    finally:
        (tmp_path / locked).chmod(0o700)


# Which source is taken.


def splits_of_tfds(task):
    train, dev = {"sentence": "fine", "label": 1}, {"sentence": "poor", "label": 0}
    return tfds.Splits([train], [dev], "2.0.0", "/prepared")


def tfds_fails(task):
    raise UserError("TFDS glue/sst2: no network")


def tfds_is_not_asked(task):
    raise AssertionError("TFDS was asked")


def test_tfds_records(monkeypatch):
    monkeypatch.setattr(tfds, "read", splits_of_tfds)
    corpus = sources.load(SST2)
    assert corpus.source == "tfds"
    assert corpus.origin == "TFDS glue/sst2 2.0.0 (1 train, 1 dev)"
    assert corpus.directory == "/prepared"
    assert corpus.notice == ""
    assert (corpus.train.texts, corpus.train.labels.tolist()) == (["fine"], [1])
    assert corpus.dev.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"sentence": "fine"}, "not the rows of SST-2 (KeyError: 'label')"),
        ({"sentence": "fine", "label": "good"}, "not the rows of SST-2 (ValueError: "),
        ({"sentence": 1, "label": 1}, "not the rows of SST-2 (AttributeError: "),
        (
            {"sentence": "fine", "label": -1},
            "example 1 is of class -1; expected 0 to 1",
        ),
        ({"sentence": "fine", "label": 2}, "example 1 is of class 2; expected 0 to 1"),
    ],
)
def test_rows_of_tfds_that_are_not_of_the_task(monkeypatch, row, expected):
    good = {"sentence": "fine", "label": 1}
    found = tfds.Splits([good], [good, row], "2.0.0", "/prepared")
    monkeypatch.setattr(tfds, "read", lambda task: found)
    line = message(dataclasses.replace(SST2, source="tfds"))
    assert line.startswith(f"TFDS glue/sst2, dev: {expected}")


def test_auto_says_why_it_gave_tfds_up(monkeypatch):
    monkeypatch.setattr(tfds, "read", tfds_fails)
    corpus = sources.load(SST2)
    assert corpus.source == "bundled"
    assert (
        corpus.origin
        == sources.load(dataclasses.replace(SST2, source="bundled")).origin
    )
    assert corpus.notice.startswith("TFDS glue/sst2: no network; DATA_DIR=DIR reads")
    assert corpus.notice.endswith("Going on with the bundled corpus.")


def test_tfds_by_name_never_falls_back(monkeypatch):
    monkeypatch.setattr(tfds, "read", tfds_fails)
    assert message(dataclasses.replace(SST2, source="tfds")) == (
        "TFDS glue/sst2: no network; DATA_DIR=DIR reads DIR/SST-2/train.tsv"
    )


def test_auto_without_a_bundled_corpus_fails(monkeypatch):
    monkeypatch.setattr(tfds, "read", tfds_fails)
    assert message(RTE).startswith("TFDS glue/sst2: no network; DATA_DIR=DIR reads")


def test_a_bad_directory_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "read", tfds_is_not_asked)
    message(dataclasses.replace(SST2, directory=str(tmp_path)))


def test_local_needs_a_directory():
    assert message(dataclasses.replace(SST2, source="local")) == (
        "the local source of SST-2 needs DATA_DIR; DATA_DIR=DIR reads"
        " DIR/SST-2/train.tsv"
    )


def test_bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "read", tfds_is_not_asked)
    task = dataclasses.replace(SST2, source="bundled", directory=str(tmp_path))
    corpus = sources.load(task)
    train, dev = sentiment.corpus()
    assert corpus.train.texts == [text for text, _ in train]
    assert corpus.dev.labels.tolist() == [label for _, label in dev]
    assert corpus.origin == (
        f"bundled sentiment corpus ({len(train):,} train, {len(dev):,} dev)"
    )


def test_bundled_where_there_is_none():
    assert message(dataclasses.replace(RTE, source="bundled")).startswith(
        "no bundled corpus stands in for RTE"
    )


def test_an_unknown_source():
    task = dataclasses.replace(SST2)
    object.__setattr__(task, "source", "web")
    assert message(task).startswith("source 'web'; expected 'auto', 'local'")


# The real files.


@pytest.mark.skipif(
    not (GLUE / "SST-2").is_dir(), reason="needs ../shared/data/glue/SST-2"
)
def test_sst2_itself():
    corpus = sources.load(dataclasses.replace(SST2, directory=str(GLUE)))
    assert corpus.origin == "local SST-2 (67,349 train, 872 dev)"
    assert np.bincount(corpus.train.labels).tolist() == [29_780, 37_569]
    assert np.bincount(corpus.dev.labels).tolist() == [428, 444]
    assert corpus.train.texts[0] == "hide new secretions from the parental units"
    assert corpus.dev.texts[0] == "it 's a charming and often affecting journey ."
    assert not any(text != text.strip() for text in corpus.train.texts)


@pytest.mark.skipif(not (GLUE / "RTE").is_dir(), reason="needs ../shared/data/glue/RTE")
def test_rte_itself():
    corpus = sources.load(dataclasses.replace(RTE, directory=str(GLUE)))
    assert corpus.origin == "local RTE (2,490 train, 277 dev)"
    assert corpus.train.pairs is not None and len(corpus.train.pairs) == 2_490
    assert np.bincount(corpus.dev.labels).tolist() == [146, 131]
