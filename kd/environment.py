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
