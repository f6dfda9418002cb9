"""What all tests share: four simulated CPU devices, a key, x64 and the real data."""

import os
from collections.abc import Iterator
from pathlib import Path

# Read by JAX when it starts, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

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
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: there is no ../shared/data beside this checkout")
    return path
