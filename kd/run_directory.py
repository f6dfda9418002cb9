"""A folder that holds one run, and never another.

config.json      every field of the experiment, what its data hash to, settings of JAX
metrics.jsonl    one row per logged step and per evaluation
checkpoints/     the newest states, while the run is not finished
model/           the network: safetensors, config, tokenizer or normalization
best/            likewise that of the best evaluation on dev, where it is to be kept
predictions.npz  logits on test, or dev where there is none
plan.npz         a transport plan between student and teacher there
samples.json     what student and teacher write, of a task that is written
summary.json     the results; there only when the run is finished
failed.json      why there are no results and never will be: the run diverged
report.html      the page to look at
"""

import contextlib
import fcntl
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from kd import config
from kd.atomic import atomic_write
from kd.errors import UserError

_FAILED = "failed.json"


class Busy(UserError):
    """Another process is at work in the folder."""


@contextlib.contextmanager
def claim(
    directory: pathlib.Path,
    description: dict[str, Any],
    *,
    on_wait: Callable[[], Any] | None = None,
) -> Iterator[None]:
    """Makes the folder ours while the run lasts, or goes on with a run begun before.

    Args:
        directory: created if it isn't there.
        description: what `config.json` says. A folder that says something else is
            left alone, unless that run did not get as far as its first checkpoint.
            What is in "toolchain" may differ; what is in "numerics" only once the run
            is finished, or where it was not recorded.
        on_wait: called before waiting for another process at work in the folder;
            without it, another process is an error.

    Raises:
        UserError: the folder holds another configuration or something that is no
            run, another process is at work in it (`Busy`), or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    with lock:
        _take(lock, directory, on_wait)
        path = directory / "config.json"
        if path.exists():
            begun_before = _begun_before(path)
            changed = config.differences(
                _identity(description), _identity(begun_before)
            )
            if not changed and not (directory / "summary.json").exists():
                changed = _changed_numerics(directory, description, begun_before)
            if changed and _has_results(directory):
                shown = "; ".join(changed[:3])
                more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
                raise UserError(
                    f"{directory} holds a run of another configuration ({shown}{more});"
                    " choose another folder with RUNS=, or remove this one"
                )
            if changed:
                for folder in ("model", "best"):
                    shutil.rmtree(directory / folder, ignore_errors=True)
                (directory / "metrics.jsonl").unlink(missing_ok=True)
                write_json(path, description)
        elif any(not entry.name.startswith(".") for entry in directory.iterdir()):
            raise UserError(
                f"{directory} holds files but no config.json, so it is no run of ours; "
                "choose another folder with RUNS="
            )
        else:
            write_json(path, description)
        yield


def _take(lock: Any, directory: pathlib.Path, on_wait: Callable[[], Any] | None):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is None:
            raise Busy(
                f"{directory}: another process is at work there; wait for it, or "
                "choose another folder with RUNS="
            ) from None
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)


def _begun_before(path: pathlib.Path) -> dict[str, Any]:
    """What `config.json` says; nothing where it is damaged and there is no result."""
    try:
        return read_json(path)
    except UserError:
        if _has_results(path.parent):
            raise
        return {}


def _identity(description: dict[str, Any]) -> Any:
    """What makes it this run, beside the environment.

    The experiment says what its scale made of it; the name of the scale adds nothing.
    """
    beside = ("numerics", "toolchain", "run")
    run = {k: v for k, v in description.get("run", {}).items() if k != "scale"}
    rest = {k: v for k, v in description.items() if k not in beside}
    return config.identity(rest | {"run": run})


def _changed_numerics(
    directory: pathlib.Path, ours: dict[str, Any], theirs: dict[str, Any]
) -> list[str]:
    if "numerics" not in ours or "numerics" not in theirs:
        return []
    changed = config.differences(ours["numerics"], theirs["numerics"])
    if changed and _has_results(directory):
        raise UserError(
            f"{directory} holds a run that was begun with other settings of JAX "
            f"({'; '.join(changed)}); go on with those of then, or choose another "
            "folder with RUNS="
        )
    return changed


def _has_results(directory: pathlib.Path) -> bool:
    return (directory / "summary.json").exists() or has_checkpoint(directory)


def has_checkpoint(directory: pathlib.Path) -> bool:
    """Whether a run has got so far that it can be gone on with."""
    return any((directory / "checkpoints").glob("[0-9]*"))


def is_over(directory: pathlib.Path) -> bool:
    """Whether there are results, or never will be."""
    return (directory / "summary.json").exists() or (directory / _FAILED).exists()


def failure(directory: pathlib.Path) -> str:
    """Why there are no results and never will be; empty where there may be."""
    path = directory / _FAILED
    return read_json(path).get("reason", "") if path.exists() else ""


def write_failure(directory: pathlib.Path, reason: str) -> None:
    """Notes that the run diverged, as it would again."""
    write_json(directory / _FAILED, {"reason": reason})


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the file whole or not at all."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: there is no such object in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "expected a JSON object")
    return found


def _damaged(path: pathlib.Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged: {reason}; choose another folder with RUNS=, or remove "
        f"{path.parent}"
    )
