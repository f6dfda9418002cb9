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


def test_a_file_is_hashed_once_and_again_when_it_changes(monkeypatch, tmp_path):
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.write_bytes(b"weights")
    config.write_bytes(b"{}")
    hashed, digest = [], hub.hashlib.file_digest

    def counted(file, name):
        hashed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hub.hashlib, "file_digest", counted)
    first = hub.fingerprint(str(tmp_path))
    assert hub.fingerprint(str(tmp_path)) == first
    assert sorted(hashed) == [str(config), str(weights)]
    # As large as before, and in its place, as one who writes files whole puts it.
    (tmp_path / "draft").write_bytes(b"WEIGHTS")
    (tmp_path / "draft").replace(weights)
    second = hub.fingerprint(str(tmp_path))
    assert second != first and hashed[2:] == [str(weights)]
    weights.write_bytes(b"more weights")
    assert hub.fingerprint(str(tmp_path)) not in (first, second)
