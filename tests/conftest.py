"""What all tests share: four simulated CPU devices, a key, x64 and the real data."""

import collections
import contextlib
import dataclasses
import gc
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

# JAX reads these when it starts, here and in the processes that tests start. Compiling
# is most of what the tests do, so what is compiled is kept, for one machine each:
# machine code does not travel.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / f"xla-{platform.node()}")
)
# The thousands of single operations are compiled faster than they are stored.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
# `make test-compiled`: as users compile, with the flags that `make exp` sets.
AS_USERS = os.environ.get("KD_TEST_COMPILED") == "1"
if not AS_USERS:
    # What is compiled is tiny: compiling it faster outweighs running it slower.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

# What is compiled is many objects that stay: looking for garbage among them again and
# again takes a tenth of the time.
gc.set_threshold(200_000, 50, 1000)

import hypothesis
import jax
import pytest
from jaxtyping import PRNGKeyArray

import kd.train.loop
from kd.data.glue import SST2
from kd.data.text import WordPiece
from kd.divergences import KL, SinKD
from kd.environment import tune_compiler
from kd.experiment import Experiment, Network
from kd.models.bert import Bert
from kd.objective import CrossEntropy
from kd.run import Workspace
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW

if AS_USERS:
    tune_compiler()
jax.config.update("jax_num_cpu_devices", 4)

OPTIMIZED = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
"""Options of `jax.jit` that compile as users do, for what fusing could change."""

# The same examples in every run: a red run is then a change's own fault. New ones are
# looked for by `make test ARGS=--hypothesis-profile=default`.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: one that begins last would keep one worker busy alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))


@pytest.fixture(autouse=True, scope="module")
def forget_what_is_compiled() -> Iterator[None]:
    """Compiled programs stay in memory, and together they take gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


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


@pytest.fixture
def tiny() -> Experiment:
    """See `tiny_experiment`."""
    return tiny_experiment()


def tiny_experiment(widths: tuple[int, ...] = (32,)) -> Experiment:
    """SinKD on the bundled corpus with networks that train in a second.

    With one width, because every shape is compiled.
    """
    bert = Bert(num_layers=1, width=16, num_heads=2, mlp_width=32, max_length=32)
    recipe = Experiment(
        data=dataclasses.replace(
            SST2, source="bundled", tokenizer=WordPiece(size=300), widths=widths
        ),
        student=bert,
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=3e-3, warmup=0.1),
        batch_size=16,
        num_steps=24,
        save_every=8,
        log_every=1,
    )
    return dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        student=dataclasses.replace(bert, width=8),
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0) + 0.8 * SinKD(),
    )


class Place(NamedTuple):
    """Somewhere to run experiments, and what was said there."""

    workspace: Workspace
    said: list[str]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Runs go to the test's own folder."""
    said: list[str] = []
    return Place(Workspace(tmp_path / "runs", "mini", data_mesh(), said.append), said)


class _Killed(BaseException):
    """What no part of a run expects."""


@contextlib.contextmanager
def killed_at_batch(number: int) -> Iterator[None]:
    """A run inside dies when it places this batch, counted from 1, on the devices."""
    place_batch = kd.train.loop.shard_batch
    left = [number]

    def until_killed(batch, mesh):
        left[0] -= 1
        if not left[0]:
            raise _Killed
        return place_batch(batch, mesh)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(kd.train.loop, "shard_batch", until_killed)
        yield


def collectives(program: str) -> list[str]:
    """What devices send each other in a compiled program: shapes and operations."""
    names = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    return sorted(
        f"{operation} {shapes}"
        for shapes, operation in re.findall(rf"= (.*?) ({names})(?:-start)?\(", program)
    )
