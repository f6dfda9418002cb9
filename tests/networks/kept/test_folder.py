"""Arrays on disk: written in a stream, gone on with, found to be damaged."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple

import jax.numpy as jnp
import numpy as np
import pytest

from kd.errors import UserError
from kd.networks.kept import folder as folders

ROWS = 20
ARRAYS = {
    "ids": np.arange(ROWS * 6, dtype=np.uint16).reshape(ROWS, 3, 2),
    "hidden": np.asarray(
        jnp.asarray(np.random.default_rng(0).normal(size=(ROWS, 4)), jnp.bfloat16)
    ),
}


def description(**settings):
    return folders.described({"teacher": "a", "data": "b"} | settings, ARRAYS)


def write(folder, order, start=0, stop=ROWS, step=5):
    with folders.Writer(folder, description(), start) as writer:
        for first in range(start, stop, step):
            places = order[first : first + step]
            writer.write(places, {name: x[places] for name, x in ARRAYS.items()})
        if stop == ROWS:
            writer.commit()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_come_back_from_wherever_they_were_written(tmp_path, shuffled):
    order = np.arange(ROWS)
    if shuffled:
        order = np.concatenate([order[::3], order[1::3], order[2::3]])
    folders.begin(tmp_path, description())
    write(tmp_path, order)
    found = folders.look(tmp_path, description())
    assert found.rows_done == ROWS and found.measured is None and not found.differences
    for name, values in folders.read(tmp_path, description()).items():
        assert values.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(values, ARRAYS[name])
    folders.note(tmp_path, description(), ROWS, {"error": 0.5})
    assert folders.look(tmp_path, description()).measured == {"error": 0.5}
    size = ARRAYS["ids"].nbytes + ARRAYS["hidden"].nbytes
    assert folders.num_bytes(description()) == size


def test_narrow_rows_end_in_zeros(tmp_path):
    folders.begin(tmp_path, description())
    with folders.Writer(tmp_path, description(), 0) as writer:
        places = np.array([2, 3])
        narrow = {name: x[places][:, :2] for name, x in ARRAYS.items()}
        writer.write(places, narrow)
        writer.commit()
    found = folders.read(tmp_path, description())["ids"]
    np.testing.assert_array_equal(found[2:4, :2], ARRAYS["ids"][2:4, :2])
    assert not found[2:4, 2].any() and not found[:2].any() and not found[4:].any()


def test_what_was_killed_goes_on_and_loses_a_chunk_at_most(tmp_path, monkeypatch):
    order = np.arange(ROWS)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folders.begin(folder, description())
    write(whole, order)
    of_two = 2 * 5 * folders.num_bytes(description()) // ROWS
    monkeypatch.setattr(folders, "_CHUNK", of_two)
    write(killed, order, stop=15)  # Three of four, and two noted.
    found = folders.look(killed, description())
    assert found.rows_done == 10 and not found.differences
    with open(killed / "ids.bin", "r+b") as file:  # A part of the next, torn.
        file.seek(10 * 12)
        file.write(b"\xff" * 40)
    write(killed, order, start=found.rows_done)
    assert content(whole) == content(killed)


def test_all_differences_are_named(tmp_path):
    folders.begin(tmp_path, description())
    found = folders.look(tmp_path, description(teacher="c", data="d"))
    assert found.differences == ('data "b", not "d"', 'teacher "a", not "c"')
    other = folders.described({"teacher": "a", "data": "b"}, {"ids": ARRAYS["ids"]})
    assert folders.look(tmp_path, other).differences[0].startswith("arrays.hidden {")
    with open(tmp_path / "ids.bin", "ab") as file:
        file.truncate(100)
    (tmp_path / "hidden.bin").unlink()
    found = folders.look(tmp_path, description())
    assert found.differences == (
        "ids.bin has 100 bytes, not 240", "hidden.bin has 0 bytes, not 160",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"rows_done": 1}', "rows_done", "negative"]
)
def test_a_damaged_manifest_is_found(tmp_path, text):
    folders.begin(tmp_path, description())
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    if text == "rows_done":
        text = json.dumps(manifest | {"rows_done": ROWS + 1})
    if text == "negative":
        text = json.dumps(manifest | {"rows_done": -1})
    path.write_text(text)
    found = folders.look(tmp_path, description())
    assert found.differences == ("manifest.json is damaged",)
    assert found.rows_done == 0


def test_nothing_is_there_at_first(tmp_path):
    assert folders.look(tmp_path / "new", description()) == folders.Found()


def test_made_again_under_a_reader_it_stays_what_it_was(tmp_path):
    folders.begin(tmp_path, description())
    write(tmp_path, np.arange(ROWS))
    reader = folders.read(tmp_path, description())
    folders.begin(tmp_path, description())
    np.testing.assert_array_equal(reader["ids"], ARRAYS["ids"])
    assert not folders.read(tmp_path, description())["ids"].any()


def test_too_little_space_is_told_before(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 5_000_000))
    folders.check_space(tmp_path / "not/yet/there", 5_000_000, "answers")
    with pytest.raises(UserError, match=r"answers take 5.0 MB, and the disk of .* 5.0"):
        folders.check_space(tmp_path / "not/yet/there", 5_000_001, "answers")


def test_one_writer_at_a_time(tmp_path):
    """The other process waits, and goes on once the first is done."""
    program = (
        "import pathlib, sys\nfrom kd.networks.kept import folder\n"
        "with folder.alone(pathlib.Path(sys.argv[1]), lambda: print('waits', "
        "flush=True)):\n    print('in', flush=True)"
    )
    with folders.alone(tmp_path, lambda: None):
        other = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert other.stdout is not None and other.stdout.readline() == "waits\n"
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == "in\n" and other.returncode == 0


def test_sizes_in_words():
    assert [folders.size_of(x) for x in (0, 999, 1234, 5.6e7, 1.24e9, 3e12, 4e15)] == [
        "0 bytes", "999 bytes", "1.2 kB", "56.0 MB", "1.2 GB", "3.0 TB", "4,000.0 TB",
    ]  # fmt: skip
