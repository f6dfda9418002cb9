import dataclasses
import json

import numpy as np
import pytest

from kd import config
from kd.data import sources
from kd.data.glue import COLA, MRPC, QNLI, RTE, SST2, STSB, WNLI
from kd.data.images import CIFAR10, FASHION_MNIST, MNIST
from kd.data.superglue import BOOLQ, CB, COPA, WIC, WSC
from kd.data.tables import GTZAN
from kd.errors import UserError
from kd.evaluate.classes import Classes


@pytest.mark.parametrize(
    "task",
    [
        *(SST2, COLA, MRPC, RTE, STSB, WNLI, QNLI, CB, BOOLQ, WIC, WSC, COPA),
        *(FASHION_MNIST, MNIST, CIFAR10, GTZAN),
    ],
    ids=lambda task: task.name,
)
def test_tasks_are_json(task):
    tree = json.loads(json.dumps(config.to_json(task)))
    assert tree["class"] == type(task).__name__
    if task.target.has_classes:
        assert tuple(tree["target"]["labels"]) == task.target.labels


@pytest.mark.parametrize(
    "task", [SST2, COLA, MRPC, RTE, STSB, WNLI, QNLI], ids=lambda task: task.name
)
def test_agreement_with_tfds(task):
    pytest.importorskip("tensorflow_datasets.text")
    from tensorflow_datasets.text.glue import Glue

    (found,) = [c for c in Glue.BUILDER_CONFIGS if f"glue/{c.name}" == task.tfds]
    if isinstance(task.target, Classes):
        assert found.label_classes == list(task.target.labels)
    assert found.text_features == dict(
        zip(task.tfds_features, task.columns, strict=True)
    ) or not any(found.text_features.values())  # MRPC: read by code of its own
    assert found.data_dir == task.name
    assert found.data_url in (task.url, "")


def test_number_of_outputs():
    assert SST2.target.num_outputs == len(SST2.labels) == 2
    assert STSB.target.num_outputs == len(STSB.labels) == 1
    assert COPA.target.num_outputs == 2 and len(COPA.labels) == 1
    assert (COPA.head, CB.head) == ("MultipleChoice", "SequenceClassification")


def in_folder(directory, content):
    """A CoLA folder; returns the task that reads it."""
    (directory / "CoLA").mkdir()
    for split in ("train", "dev"):
        (directory / "CoLA" / f"{split}.tsv").write_text(content)
    return dataclasses.replace(COLA, directory=str(directory))


def test_files_without_a_header(tmp_path):
    task = in_folder(tmp_path, "gj04\t1\t\tOur friends won.\ngj04\t0\t*\tThey am.\n")
    corpus = sources.load(task)
    assert corpus.train.texts == ["Our friends won.", "They am."]
    assert corpus.train.labels.tolist() == [1, 0]
    assert corpus.origin == "local CoLA (2 train, 2 dev)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("gj04\t1\t\tFine.\ngj04\t2\t\tBad.\n", "train.tsv:2: label '2'; expected 0 t"),
        ("gj04\t1\tFine.\n", "train.tsv:1: 3 fields between tabs; expected 4"),
        ("", "train.tsv: no examples; expected one per line"),
    ],
)
def test_lines_are_counted_from_the_first(tmp_path, content, expected):
    with pytest.raises(UserError) as refused:
        sources.load(in_folder(tmp_path, content))
    assert expected in str(refused.value)


def test_cola_itself(shared_data):
    task = dataclasses.replace(COLA, directory=str(shared_data / "glue"))
    corpus = sources.load(task)
    assert corpus.origin == "local CoLA (8,551 train, 1,043 dev)"
    assert np.bincount(corpus.train.labels).tolist() == [2528, 6023]
    assert np.bincount(corpus.dev.labels).tolist() == [322, 721]


@pytest.mark.parametrize(
    ("task", "folder", "train", "dev", "first"),
    [
        (MRPC, "glue", [1194, 2474], [129, 279], "He said the foodservice pie busi"),
        (RTE, "glue", [1249, 1241], [146, 131], "Dana Reeve, the widow of the acto"),
        (WNLI, "glue", [323, 312], [40, 31], "The drain is clogged with hair."),
        (CB, "superglue", [115, 119, 16], [23, 28, 5], "Valence the void-brain"),
        (WIC, "superglue", [2714, 2714], [319, 319], "class: An emerging prof"),
        (WSC, "superglue", None, [66, 38], "Bernard , who had not told"),
        (COPA, "superglue", [195, 205], [55, 45], "effect: The man turned on the"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_tasks_themselves(shared_data, task, folder, train, dev, first):
    corpus = sources.load(
        dataclasses.replace(task, directory=str(shared_data / folder))
    )
    if train:
        assert np.bincount(corpus.train.labels).tolist() == train
    assert np.bincount(corpus.dev.labels).tolist() == dev
    assert corpus.dev.texts[0].startswith(first)


def test_a_regression_itself(shared_data):
    task = dataclasses.replace(STSB, directory=str(shared_data / "glue"))
    corpus = sources.load(task)
    assert corpus.origin == "local STS-B (5,749 train, 1,500 dev)"
    assert corpus.train.labels.dtype == np.float32
    np.testing.assert_allclose(corpus.train.labels.mean(), 2.701, atol=5e-4)
    np.testing.assert_allclose(corpus.dev.labels.mean(), 2.364, atol=5e-4)


def test_names_decide_before_positions():
    digits = Classes(("1", "2"))
    assert [digits.parse(text) for text in "12"] == [0, 1]
    with pytest.raises(ValueError, match="label '0'; expected '1', '2'"):
        digits.parse("0")
    with pytest.raises(ValueError, match="all different"):
        Classes(("a", "a"))


def test_a_metric_that_the_task_has_not():
    assert MRPC.target.metric("f1").title == "F1"
    with pytest.raises(ValueError, match="no metric 'pearson'; there are f1, accuracy"):
        MRPC.target.metric("pearson")


def test_blank_last_lines_are_left_out(tmp_path):
    task = in_folder(tmp_path, "gj04\t1\t\tFine.\n\n\n")
    assert len(sources.load(task).train) == 1
