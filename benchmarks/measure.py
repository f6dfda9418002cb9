"""What every benchmark does: time in interleaved blocks, say on what, keep the rest.

A result is one JSON file with the raw seconds of every block; `benchmarks.tables`
makes the tables of README.md from it.
"""

import argparse
import ctypes
import datetime
import gc
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tqdm

from kd import catalog, config, environment
from kd.errors import UserError
from kd.experiment import Experiment
from kd.run_directory import write_json
from kd.train.signals import Interrupted

RESULTS = pathlib.Path(__file__).parent / "results"


def race(
    contenders: Mapping[str, Callable[[int], Any]],
    examples: Sequence[int],
    *,
    title: str,
    repeats: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Times contenders on the same blocks of work, one block each in turn.

    What slows the machine down for a while then hits all of them. Who begins changes
    from block to block, since one leaves caches and clocks to the next.

    Args:
        contenders: `contenders[name](i)` does block i and returns when it is done.
            The first one is compared with the others. All are warm already.
        examples: training examples in every block.
        title: what the blocks are.
        repeats: how often each contender does its block, once unless said. What
            the one before leaves behind, threads that spin and caches, is then as
            small a part of a fast one's time as of a slow one's.

    Returns:
        The title, `examples`, `repeats` if given, and the seconds of every contender,
        a number a block: for doing it once, the mean of the repeats.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in tqdm.trange(len(examples), desc=title, disable=None):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            times = repeats[name] if repeats else 1
            seconds[name].append(timed(contenders[name], i, times=times))
    found = {"title": title, "examples": list(examples), "seconds": seconds}
    return found | ({"repeats": dict(repeats)} if repeats else {})


def timed(work: Callable[..., Any], *arguments: Any, times: int = 1) -> float:
    """Seconds that a call takes, the mean of so many."""
    started = time.perf_counter()
    for _ in range(times):
        work(*arguments)
    return (time.perf_counter() - started) / times


def added_at_peak(work: Callable[[], Any]) -> int:
    """Bytes that a call adds to this process at its peak, once it is warm."""
    work()  # compiles
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def added_in_own_process(benchmark: str, side: Any) -> int:
    """What `added_at_peak` finds of a side of a benchmark in a fresh process.

    Args:
        benchmark: the module, which takes `--peak-of` and prints the bytes.
        side: which one, as JSON.
    """
    command = [sys.executable, "-m", f"benchmarks.{benchmark}"]
    done = subprocess.run(
        [*command, "--peak-of", json.dumps(side)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-1])


def prepare_pytorch() -> None:
    """Gives PyTorch what XLA has: as many threads, and no denormal numbers."""
    import torch

    logging.getLogger("torch").setLevel(logging.ERROR)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # The moments of words not seen for long decay to denormal numbers.
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def parser(benchmark: str, description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=(description or "").partition("\n")[0],
    )
    parser.add_argument(
        "--data-dir", help="folder with SST-2/train.tsv (.gz, .xz); else bundled data"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=RESULTS / f"{benchmark}.json"
    )
    return parser


def mini_experiment(data_dir: str | None) -> Experiment:
    """`sst2_sinkd` at scale mini, on local data or on those bundled with the code."""
    source = "local" if data_dir else "bundled"
    return config.override(
        catalog.load("sst2_sinkd", "mini"),
        f"data.source={source}",
        f"data.directory={data_dir or ''}",
    ).sharing_data()


def write_result(output: pathlib.Path, benchmark: Callable[[], dict[str, Any]]) -> int:
    """Runs a benchmark and keeps its result with the circumstances.

    Returns:
        The exit status: 0, or 2 after one line that says what was wrong.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    load_before = os.getloadavg()
    environment.tune_compiler()  # as `make exp` does
    try:
        found = benchmark()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        return interrupted.exit_status
    circumstances = {
        "started": started,
        "machine": machine(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "load_average": {"before": load_before, "after": os.getloadavg()},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, circumstances | found)
    print(f"written: {output}")
    return 0


def machine() -> dict[str, Any]:
    """The processor, how many cores of it this process may use, and the system."""
    return {
        "cpu": _cpu_model(),
        "num_cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Those of a run, and of the other sides where they are installed."""
    found = environment.versions()
    for name in ("torch", "transformers", "ott-jax", "POT", "geomloss"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    described: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        described.setdefault(name.strip(), value.strip())
    model = described.get("model name", platform.processor() or "unknown")
    # Virtual machines hide the model; family and number still tell the generation.
    family, number = described.get("cpu family"), described.get("model")
    return f"{model} (family {family}, model {number})" if family else model
