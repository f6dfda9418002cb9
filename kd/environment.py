"""Where a result came from: versions, devices, settings, the commit of the code."""

import enum
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from kd.errors import UserError

_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy"
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of what computes, and of this code where it is a git checkout."""
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def device() -> dict[str, Any]:
    """The accelerators, or the processor."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "num_devices": jax.device_count(),
        "num_cores": os.cpu_count(),
        **({"num_processes": jax.process_count()} if jax.process_count() > 1 else {}),
    }


_NUMERICS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl",
    "jax_threefry_partitionable", "jax_numpy_dtype_promotion",
)  # fmt: skip


def numerics() -> dict[str, Any]:
    """The settings of JAX that change what is computed, as JSON.

    A run goes on only with those that it was begun with.
    """
    found = {name: getattr(jax.config, name) for name in _NUMERICS}
    return {
        name: value.value if isinstance(value, enum.Enum) else value
        for name, value in found.items()
    }


def toolchain() -> dict[str, str]:
    """What compiles, for the record: a run may go on with another."""
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    return found | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}


def backend() -> str:
    """The platform that computes: "cpu", "gpu", "tpu".

    Raises:
        UserError: the one that was asked for is not there.
    """
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter without a word
        asked = jax.config.jax_platforms  # pyrefly: ignore
        said = str(error).partition("\n")[0].partition(". (set JAX")[0]
        reason = said or "JAX has no support for it installed"
        raise UserError(
            f"JAX_PLATFORMS={asked}: {reason:.200}; make install-gpu installs support "
            "of accelerators, JAX_PLATFORMS= lets JAX choose among what is there"
        ) from error


_XLA_FLAGS = (
    # A loop whose arrays fit into the second-level cache is compiled whole, where the
    # default hands out every operation of every round on its own.
    "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000",
    # Not scheduled for concurrency: handing a small operation to another thread takes
    # longer than to compute it. Matrix products still use all cores.
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    # Half of the width is the default.
    "--xla_cpu_prefer_vector_width=512",
)
_JAXLIB_OF_FLAGS = "0.10."


def tune_compiler() -> None:
    """Has XLA compile for CPUs what a loss is made of: small arrays, short loops.

    Sinkhorn losses of small batches become two to four times faster; a training step
    that spends its time in the network is as fast as before. No effect on
    accelerators, nor once JAX has looked for devices. Where the user has set
    `XLA_FLAGS`, those are used as they are.
    """
    # At a flag that it does not know XLA ends the process.
    known = importlib.metadata.version("jaxlib").startswith(_JAXLIB_OF_FLAGS)
    if known and "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = " ".join(_XLA_FLAGS)


def keep_compiled(directory: pathlib.Path) -> None:
    """Has JAX keep what it compiles, so that the next process need not do it again.

    A folder for each machine, since machine code does not travel. Where the user has
    told JAX a folder (`JAX_COMPILATION_CACHE_DIR`), that one is used.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = str(directory / platform.node())
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _commit() -> str | None:
    here = pathlib.Path(__file__).parent
    try:
        # Installed below somebody's repository, this file is not part of it.
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", pathlib.Path(__file__).name],
            cwd=here, capture_output=True, check=True, timeout=10,
        )  # fmt: skip
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
