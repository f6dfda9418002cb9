import dataclasses
import json

import numpy as np
import pytest

from kd import config
from kd.data import sources
from kd.data.glue import COLA, SST2
from kd.data.images import CIFAR10, FASHION_MNIST, MNIST
from kd.data.tables import GTZAN
from kd.errors import UserError


@pytest.mark.parametrize("task", [SST2, COLA, FASHION_MNIST, MNIST, CIFAR10, GTZAN])
def test_tasks_are_json(task):
    tree = json.loads(json.dumps(config.to_json(task)))
    assert tree["class"] == type(task).__name__
    assert tuple(tree["labels"]) == task.labels


@pytest.mark.parametrize("task", [SST2, COLA])
def test_agreement_with_tfds(task):
    pytest.importorskip("tensorflow_datasets.text")
    from tensorflow_datasets.text.glue import Glue

    (found,) = [c for c in Glue.BUILDER_CONFIGS if f"glue/{c.name}" == task.tfds]
    assert found.label_classes == list(task.labels)
    assert found.text_features == dict(
        zip(task.tfds_features, task.columns, strict=True)
    )
    assert found.data_dir == task.name
    assert found.data_url == task.url


def test_num_classes():
    assert SST2.num_classes == 2
    assert dataclasses.replace(SST2, labels=("a", "b", "c")).num_classes == 3


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
