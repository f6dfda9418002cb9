import platform

import jax
import pytest

from kd import environment


@pytest.fixture
def updates(monkeypatch):
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    return found


def test_what_is_compiled_is_kept_in_a_folder_of_this_machine(
    tmp_path, monkeypatch, updates
):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    environment.keep_compiled(tmp_path)
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / platform.node())


def test_a_folder_that_the_user_chose_stays(tmp_path, monkeypatch, updates):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    environment.keep_compiled(tmp_path)
    assert not updates


def test_versions_and_device_name_what_computes():
    assert {"python", "jax", "jaxlib"} <= environment.versions().keys()
    assert environment.device()["num_devices"] == jax.device_count()
