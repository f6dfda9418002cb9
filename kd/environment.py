"""Where a result came from: versions, devices, the commit of the code."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

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
    }


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
