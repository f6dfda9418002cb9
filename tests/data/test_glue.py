import dataclasses
import json

import pytest

from kd.data.glue import SST2, TextTask


def test_sst2_survives_json():
    fields = json.loads(json.dumps(dataclasses.asdict(SST2)))
    tuples = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    assert TextTask(**(fields | tuples)) == SST2


def test_sst2_agrees_with_tfds():
    pytest.importorskip("tensorflow_datasets.text")
    from tensorflow_datasets.text.glue import Glue

    (config,) = [c for c in Glue.BUILDER_CONFIGS if f"glue/{c.name}" == SST2.tfds]
    assert config.label_classes == list(SST2.labels)
    assert config.text_features == dict(
        zip(SST2.tfds_features, SST2.columns, strict=True)
    )
    assert config.label_column == SST2.label_column
    assert config.data_dir == SST2.name
    assert config.data_url == SST2.url


def test_num_classes():
    assert SST2.num_classes == 2
    assert dataclasses.replace(SST2, labels=("a", "b", "c")).num_classes == 3
