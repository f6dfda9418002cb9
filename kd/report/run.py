"""What a finished run left in its directory, read back."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kd.errors import UserError


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of one run directory."""

    directory: Path
    config: Mapping[str, Any]
    """The resolved experiment: config.json."""
    summary: Mapping[str, Any]
    """The final numbers: summary.json."""
    rows: tuple[Mapping[str, Any], ...]
    """Training and evaluation rows in the order they were logged: metrics.jsonl."""
    predictions: Mapping[str, np.ndarray]
    """Dev labels [n] and logits [n, v]: predictions.npz, or empty."""
    plan: Mapping[str, np.ndarray]
    """Transport plan and cost of one dev batch: plan.npz, or empty."""

    def series(
        self, split: str, name: str
    ) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """Steps and values of one metric, from the rows that have it."""
        rows = [
            row
            for row in self.rows
            if row.get("split") == split and row.get(name) is not None
        ]
        steps = np.array([row["step"] for row in rows], dtype=np.int64)
        return steps, np.array([row[name] for row in rows], dtype=np.float64)

    def terms(self) -> list[str]:
        """Names `loss/...` of the terms of the loss, in the order of the mix."""
        return list(
            dict.fromkeys(
                name
                for row in self.rows
                if row.get("split") == "train"
                for name in row
                if name.startswith("loss/")
            )
        )


def read_run(directory: str | Path) -> Run:
    """Reads a run directory.

    Args:
        directory: holds config.json, summary.json and metrics.jsonl; predictions.npz
            and plan.npz are optional.

    Raises:
        UserError: a required file is missing, or a file does not hold what it should.
    """
    directory = Path(directory)
    lines = _text(directory / "metrics.jsonl").splitlines()
    return Run(
        directory=directory,
        config=_object(_text(directory / "config.json"), f"{directory}/config.json"),
        summary=_object(_text(directory / "summary.json"), f"{directory}/summary.json"),
        rows=tuple(
            _object(line, f"{directory}/metrics.jsonl, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ),
        predictions=_arrays(directory / "predictions.npz"),
        plan=_arrays(directory / "plan.npz"),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name}: expected the directory of a finished run"
        ) from None


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)
