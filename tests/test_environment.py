import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax
import numpy as np
import pytest

from kd import environment
from kd.divergences import SinKD


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


def test_settings_that_change_the_bits_are_json():
    found = environment.numerics()
    assert found == json.loads(json.dumps(found))
    assert found["jax_numpy_dtype_promotion"] == "standard"
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        changed = environment.numerics()
    different = {name for name in found if found[name] != changed[name]}
    assert different == {"jax_enable_x64", "jax_default_matmul_precision"}


def test_the_toolchain_has_the_flags_of_the_compiler(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some=1")
    assert environment.toolchain()["XLA_FLAGS"] == "--xla_some=1"
    assert {"jax", "jaxlib"} < environment.toolchain().keys()


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there(asked):
    if asked == "cuda" and jax.default_backend() != "cpu":
        pytest.skip("the platform is there")
    code = "from kd.__main__ import main; import sys; sys.exit(main(['sst2_ce']))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"JAX_PLATFORMS": asked}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={asked}: ")
    assert "make install-gpu" in line


LOSSES = {
    "blocks": (SinKD(), 130, 2),
    "logarithms": (SinKD(epsilon=0.01), 130, 2),
    "scans": (SinKD(), 500, 2),
    "matrix": (SinKD(), 12, 5),
}


def values_and_gradients():
    found = {}
    for name, (loss, *shape) in LOSSES.items():
        logits = np.random.default_rng(0).normal(0, 2, (2, *shape)).astype(np.float32)
        both = jax.jit(jax.value_and_grad(lambda s, t, loss=loss: loss(s, t).mean()))
        found[f"{name}, value"], found[f"{name}, gradient"] = both(*logits)
    return found


@pytest.mark.slow
def test_the_tuned_compiler_computes_the_same(tmp_path):
    code = (
        "import os, sys, numpy as np; from kd import environment;"
        "environment.tune_compiler();"
        "assert 'vector_width' in os.environ['XLA_FLAGS'], 'not tuned';"
        "from tests.test_environment import values_and_gradients;"
        "np.savez(sys.argv[1], **values_and_gradients())"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("XLA", "JAX"))}
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "found.npz"],
        cwd=pathlib.Path(__file__).parents[1],
        env=environ | {"JAX_PLATFORMS": "cpu"}, check=True, timeout=300,
    )  # fmt: skip
    found = np.load(tmp_path / "found.npz")
    for key, expected in values_and_gradients().items():
        np.testing.assert_allclose(
            found[key], expected, rtol=1e-4, atol=1e-4 * abs(expected).max()
        )


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setattr(
        os, "environ", {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=128"}
    )
    environment.tune_compiler()
    assert os.environ == {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=128"}


@pytest.mark.parametrize(("version", "known"), [("0.10.9", True), ("0.11.0", False)])
def test_flags_are_set_for_the_compiler_that_knows_them(monkeypatch, version, known):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    environment.tune_compiler()
    assert ("XLA_FLAGS" in os.environ) == known
