"""What a folder holds, and which run may go on in it."""

import json

import pytest

from kd import run_directory
from kd.errors import UserError

X32 = {"jax_enable_x64": False, "jax_default_matmul_precision": None}
X64 = X32 | {"jax_enable_x64": True}


def description(numerics, **more):
    return {"experiment": {"batch_size": 1}, "numerics": numerics} | more


def begin(path, described, *, saved=True, finished=False):
    with run_directory.claim(path, described):
        if saved:
            (path / "checkpoints" / "8").mkdir(parents=True)
        if finished:
            (path / "summary.json").write_text("{}")


def contents(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_run_goes_on_with_the_settings_that_it_was_begun_with(tmp_path):
    begin(tmp_path, description(X32))
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match=r"\(jax_enable_x64: False -> True\)") as refused,
        run_directory.claim(tmp_path, description(X64)),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before
    with run_directory.claim(tmp_path, description(X32)):
        pass


def test_settings_may_change_before_the_first_checkpoint(tmp_path):
    begin(tmp_path, description(X32), saved=False)
    begin(tmp_path, description(X64))
    assert json.loads((tmp_path / "config.json").read_text())["numerics"] == X64


def test_settings_do_not_matter_where_nothing_is_computed(tmp_path):
    begin(tmp_path, description(X32), finished=True)
    with run_directory.claim(tmp_path, description(X64)):
        pass


def test_settings_that_were_not_recorded_are_not_compared(tmp_path):
    begin(tmp_path, {"experiment": {"batch_size": 1}})
    with run_directory.claim(tmp_path, description(X64)):
        pass


def test_the_toolchain_is_recorded_and_may_change(tmp_path):
    begin(tmp_path, description(X32, toolchain={"jax": "0.10.2"}))
    with run_directory.claim(tmp_path, description(X32, toolchain={"jax": "0.10.3"})):
        pass
    recorded = json.loads((tmp_path / "config.json").read_text())
    assert recorded["toolchain"] == {"jax": "0.10.2"}


def test_a_damaged_description_is_made_again_where_nothing_is_lost(tmp_path):
    begin(tmp_path, description(X32), saved=False)
    (tmp_path / "config.json").write_text('{"experiment": ')
    begin(tmp_path, description(X32))
    assert run_directory.read_json(tmp_path / "config.json") == description(X32)
    (tmp_path / "config.json").write_text('{"experiment": ')
    with (
        pytest.raises(UserError, match=r"config.json is damaged: .*; choose another"),
        run_directory.claim(tmp_path, description(X32)),
    ):
        pass
    assert (tmp_path / "checkpoints" / "8").is_dir()
