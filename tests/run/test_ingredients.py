"""What runs are made from, and what those of one process share of it."""

import dataclasses

import pytest
from conftest import tiny_experiment

from kd import config, run
from kd.data import sentences

pytestmark = pytest.mark.slow


def test_text_is_encoded_once_for_all_runs_of_a_process(place, monkeypatch):
    workspace, _ = place
    encode, encoded = sentences.text.encode, []

    def counted(tokenizer, records, **settings):
        encoded.append(len(records))
        return encode(tokenizer, records, **settings)

    monkeypatch.setattr(sentences.text, "encode", counted)
    teacher = tiny_experiment().teachers[0]
    assert teacher.recipe
    short = dataclasses.replace(teacher.recipe, num_steps=2)
    run.run(short, "first", workspace)
    assert len(encoded) == 2  # train and dev
    run.run(dataclasses.replace(short, seed=1), "first", workspace)
    run.run(config.override(short, "data.fraction=0.5"), "half", workspace)
    assert len(encoded) == 2
    # Another tokenizer makes other inputs, and is not taken for the first.
    run.run(config.override(short, "data.tokenizer.size=299"), "smaller", workspace)
    assert len(encoded) == 4
    tokenizers = [
        (workspace.runs / name / "model/vocab.txt").read_text().splitlines()
        for name in ("first/0", "first/1", "half/0", "smaller/0")
    ]
    assert tokenizers[0] == tokenizers[1] == tokenizers[2]
    assert len(tokenizers[3]) == 299
