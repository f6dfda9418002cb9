"""What all tests share: four simulated CPU devices, a key, x64 and the real data."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

# JAX reads these when it starts, here and in the processes that tests start. Compiling
# is most of what the tests do, so what is compiled is kept, for one machine each:
# machine code does not travel.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / f"xla-{platform.node()}")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest
from jaxtyping import PRNGKeyArray

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def key() -> PRNGKeyArray:
    """A root of randomness, the same for every test."""
    return jax.random.key(0)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for this one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets beside the checkout; skips where it is absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: there is no ../shared/data beside this checkout")
    return path
