"""What must be the same in all processes, compared before anything is computed."""

import hashlib
import pathlib
import time
import uuid
from typing import Any

import jax

from kd import catalog, config, environment
from kd.errors import UserError
from kd.hosts import joining
from kd.hosts.exchange import of_all, of_first

_CLOCKS = 60.0
"""Seconds that clocks may be apart: files are told old from new by them."""
_SEEN = 15.0
"""Seconds within which a file must appear on the other hosts."""


def check(experiment: Any, runs: pathlib.Path) -> None:
    """Checks that all processes were started alike and share a folder.

    Args:
        experiment: that they are about to run.
        runs: the folder of all runs.

    Raises:
        UserError: in every process, naming two that differ and in what.
    """
    if joining.several():
        _check_alike(experiment)
        _check_batches(experiment)
        _check_clocks()
        _check_folder(runs)


def _check_alike(experiment: Any) -> None:
    ours = {
        "code": environment.versions() | {"source": _source()},
        "settings of JAX": environment.numerics() | environment.toolchain(),
        "devices": {
            "of each process": jax.local_device_count(),
            "kind": jax.local_devices()[0].device_kind,
        },
        "experiment": config.to_json(experiment),
    }
    first = of_first(lambda: ours)
    changed = config.differences(ours, first)
    for i, lines in enumerate(of_all(changed[:2])):
        if lines:
            raise UserError(
                f"{joining.name_of(0)} and {joining.name_of(i)} differ in "
                f"{'; '.join(line[:200] for line in lines)}; all processes must be "
                "started alike, on the same code and the same devices"
            )


def _check_batches(experiment: Any) -> None:
    """Also of what it is made from, before that is trained."""
    check_batch(experiment.batch_size, jax.device_count())
    for network in experiment.made_from.values():
        if network.recipe is not None:
            _check_batches(network.recipe)


def check_batch(batch_size: int, num_devices: int) -> None:
    """Checks that every device of several processes has an example of a batch."""
    if joining.several() and batch_size < num_devices:
        raise UserError(
            f"batch_size={batch_size} has no example for some of {num_devices} devices "
            f"of {joining.group().processes} processes; expected {num_devices} at least"
        )


def _source() -> str:
    """Of the code, whether it is committed or not."""
    digest = hashlib.sha256()
    for folder in (pathlib.Path(__file__).parents[1], catalog.folder()):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _check_clocks() -> None:
    of_all(None)  # All are here, so all look at the same moment.
    clocks = of_all(time.time())
    for i, clock in enumerate(clocks):
        if abs(clock - clocks[0]) > _CLOCKS:
            raise UserError(
                f"the clocks of {joining.name_of(0)} and {joining.name_of(i)} are "
                f"{abs(clock - clocks[0]):.0f} s apart; set them, for example by NTP"
            )


def _check_folder(runs: pathlib.Path) -> None:
    def put() -> str:
        path = runs / f".shared-{uuid.uuid4().hex[:12]}"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise UserError(f"cannot write to {runs}: {error.strerror}") from error
        return path.name

    path = runs / of_first(put)
    ends = time.monotonic() + _SEEN
    while not (found := path.exists()) and time.monotonic() < ends:
        time.sleep(0.1)
    blind = [joining.name_of(i) for i, seen in enumerate(of_all(found)) if not seen]
    if joining.is_first():
        path.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"RUNS={runs} is not one folder for all: {' and '.join(blind[:3])} cannot "
            f"see what {joining.name_of(0)} wrote there; give one that all hosts share"
        )
