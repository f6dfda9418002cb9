"""Networks of the hub, read from a folder."""

import dataclasses

import pytest

from kd import weights
from kd.data.language import TINY_SHAKESPEARE
from kd.divergences import KL, PerToken
from kd.errors import UserError
from kd.experiment import Experiment, Network
from kd.models.llama import Llama
from kd.train.optimizer import AdamW

EXPERIMENT = Experiment(
    data=dataclasses.replace(TINY_SHAKESPEARE, length=16),
    student=Llama(num_layers=1),
    teachers=(Network(place="HuggingFaceTB/SmolLM2-135M"),),
    objective=1.0 * PerToken(KL()),
    optimizer=AdamW(),
    num_steps=1,
)


@pytest.mark.parametrize("file", ["config.json", "SmolLM2.Q4_1.gguf"])
def test_a_folder_is_one_network_or_has_one_by_its_name(tmp_path, file):
    for folder in (tmp_path / "one", tmp_path / "all/SmolLM2-135M"):
        folder.mkdir(parents=True)
        (folder / file).write_bytes(b"")
    for given, found in (("one", "one"), ("all", "all/SmolLM2-135M")):
        experiment = weights.from_folder(EXPERIMENT, str(tmp_path / given))
        assert experiment.teachers[0].place == str(tmp_path / found)


def test_a_folder_without_it(tmp_path):
    with pytest.raises(UserError, match=r"no config.json, or .gguf, in .*SmolLM2-135M"):
        weights.from_folder(EXPERIMENT, str(tmp_path))
