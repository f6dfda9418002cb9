"""A folder that holds one run, and never another.

config.json      the experiment, fully resolved, and what its data hash to
metrics.jsonl    one row per logged step and per evaluation
checkpoints/     the newest states
model/           the network: safetensors, config, tokenizer
predictions.npz  logits on dev
summary.json     the results; there only when the run is finished
report.html      the page to look at
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from kd import config
from kd.errors import UserError


@contextlib.contextmanager
def claim(
    directory: pathlib.Path, description: dict[str, Any], *, wait: bool = False
) -> Iterator[None]:
    """Makes the folder ours while the run lasts, or goes on with one begun before.

    Args:
        directory: created if it isn't there.
        description: what `config.json` says. A folder that says something else is
            left alone.
        wait: for another process that is at work in the folder.

    Raises:
        UserError: the folder holds another configuration or something that is no
            run, another process is at work in it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"{directory}: another process is at work there; wait for it, or "
                "choose another folder with RUNS="
            ) from None
        path = directory / "config.json"
        if path.exists():
            _check_same(directory, description, read_json(path))
        elif any(entry.name != ".lock" for entry in directory.iterdir()):
            raise UserError(
                f"{directory} holds files but no config.json, so it is no run of ours; "
                "choose another folder with RUNS="
            )
        else:
            write_json(path, description)
        yield


def _check_same(directory, ours, theirs):
    changed = config.differences(ours, theirs)
    if changed:
        shown = "; ".join(changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{directory} holds a run of another configuration ({shown}{more}); choose "
            "another folder with RUNS=, or remove this one"
        )


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, allow_nan=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
