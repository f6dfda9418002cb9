"""kd.models.hub: where the files of a checkpoint lie."""

import huggingface_hub
import huggingface_hub.errors
import pytest

from kd.errors import UserError
from kd.models import hub


def test_find_file_in_a_directory(tmp_path):
    (tmp_path / "vocab.txt").touch()
    assert hub.find_file(tmp_path, "vocab.txt") == tmp_path / "vocab.txt"
    assert hub.find_file(tmp_path, "tokenizer.json") is None


def test_hub_out_of_reach_is_one_line(monkeypatch):
    def download(name, filename):
        raise huggingface_hub.errors.LocalEntryNotFoundError("long\nstory")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match="cannot be downloaded from the hub") as caught:
        hub.find_file("someone/tiny-bert", "config.json")
    assert "\n" not in str(caught.value)


def test_neither_directory_nor_name():
    with pytest.raises(UserError, match="no such directory, and no such model"):
        hub.find_file("/no/such/directory", "config.json")
