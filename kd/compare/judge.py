"""What the finished runs of a table say: plain numbers, ready for JSON.

Everything that a page shows is in the record that is made here, so that it can be drawn
again, and read, without the runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd import config
from kd.compare.cells import Cell, by_row
from kd.compare.crossed import Estimate, deal, estimate, pseudo_values
from kd.compare.crossed import smallest_difference as smallest
from kd.compare.holm import holm
from kd.compare.table import Table
from kd.errors import UserError
from kd.evaluate.metric import Metric

ALPHA = 0.05


class _Scored(NamedTuple):
    """A finished run's scores, and what each group of examples contributes."""

    whole: dict[str, float]
    groups: dict[str, np.ndarray]


def judge(table: Table, wanted: Sequence[Cell]) -> dict[str, Any]:
    """The numbers of a table: scores, differences, what it can tell and what it can't.

    Of every metric: the mean of every row over its finished seeds; its difference to
    the baseline over the seeds that both finished; Holm's correction over the rows; and
    the smallest difference that the table would likely have found. See
    `kd.compare.crossed`.

    Raises:
        UserError: not a single run is finished, or a run's predictions are damaged.
    """
    reader = _Reader(table)
    rows = by_row(wanted)
    scored = {
        row: {cell.seed: reader.scores(cell) for cell in cells if cell.finished}
        for row, cells in rows.items()
    }
    done = [cell for cell in wanted if cell.finished]
    if not done:
        raise UserError("no run of the table is finished")
    others = [row for row in table.rows if row != table.baseline]
    differences: dict[str, dict[str, Any]] = {row: {} for row in others}
    able = {}
    for metric in table.metrics:
        found = {
            row: _difference(scored[row], scored[table.baseline], metric)
            for row in others
        }
        known = {row: one for row, one in found.items() if one is not None}
        corrected = holm([one.p_value for one in known.values()])
        for (row, one), p in zip(known.items(), corrected, strict=True):
            differences[row][metric.name] = _described(one) | _tested(one, p)
        able[metric.name] = _number(smallest([*known.values()]))
    summary = done[0].summary()
    main, selects = table.metrics[0], table.protocol == "paper"
    return {
        "metrics": [metric.described() for metric in table.metrics],
        "best_metric": table.target.main.described(),
        "baseline": table.baseline,
        "protocol": table.protocol,
        "seeds": [*table.seeds],
        "data": summary["data"],
        "task": summary["task"]["name"],
        "gap": _gap(main, reader.teacher, scored[table.baseline], able[main.name]),
        "smallest_difference": able,
        "rows": [
            _row(table, row, rows[row], scored[row])
            | {"differences": differences.get(row, {})}
            | (_best(rows[row], rows[table.baseline]) if selects else {})
            for row in table.rows
        ],
        "claims": _claims(table, scored),
    }


class _Reader:
    """Reads the predictions of runs on one and the same split."""

    def __init__(self, table: Table):
        self._target = table.target
        self._metrics = table.metrics
        self._targets: np.ndarray | None = None
        self._groups = np.zeros(0, int)
        self.teacher: dict[str, float] = {}

    def scores(self, cell: Cell) -> _Scored:
        path = cell.directory / "predictions.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                targets, outputs = self._target.read_predictions(arrays)
            student, teacher = outputs["student"], outputs.get("teacher")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is damaged ({error}); remove {cell.directory} to make this "
                "run again"
            ) from error
        if self._targets is None:
            self._targets, self._groups = targets, deal(len(targets))
        elif not np.array_equal(self._targets, targets):
            raise UserError(
                f"{cell.directory}: what it is scored on is not that of other runs"
            )
        whole, groups = {}, {}
        for metric in self._metrics:
            fidelity = metric in self._target.fidelity
            against = teacher if fidelity else targets
            if against is None:
                continue
            whole[metric.name], groups[metric.name] = pseudo_values(
                lambda index, m=metric, a=against: m.compute(student[index], a[index]),
                self._groups,
            )
            if teacher is not None and not fidelity and metric.name not in self.teacher:
                self.teacher[metric.name] = metric.compute(teacher, targets)
        return _Scored(whole, groups)


def _difference(
    ours: Mapping[int, _Scored], theirs: Mapping[int, _Scored], metric: Metric
) -> Estimate | None:
    """Ours less theirs, on the seeds that both have."""
    name = metric.name
    both = [s for s in ours if s in theirs and name in ours[s].whole]
    both = [s for s in both if name in theirs[s].whole]
    if not both:
        return None
    return estimate(
        np.array([ours[s].whole[name] - theirs[s].whole[name] for s in both]),
        np.array([ours[s].groups[name] - theirs[s].groups[name] for s in both]),
    )


def _mean(scored: Mapping[int, _Scored], name: str) -> Estimate | None:
    having = [one for one in scored.values() if name in one.whole]
    if not having:
        return None
    return estimate(
        np.array([one.whole[name] for one in having]),
        np.array([one.groups[name] for one in having]),
    )


def _row(
    table: Table, row: str, cells: Sequence[Cell], scored: Mapping[int, _Scored]
) -> dict[str, Any]:
    means = {metric.name: _mean(scored, metric.name) for metric in table.metrics}
    seeds, best = [], []
    for cell in cells:
        entry: dict[str, Any] = {"seed": cell.seed, "key": cell.directory.name}
        if cell.seed in scored:
            entry["scores"] = scored[cell.seed].whole
            summary = cell.summary()
            entry["best"] = summary["student"]["best"]
            best.append(entry["best"]["value"])
            entry["teacher_queries"] = summary.get("teacher_queries")
        else:
            entry["failed"] = cell.failure or "not finished"
        seeds.append(entry)
    return {
        "name": row,
        "scores": {k: _described(v) for k, v in means.items() if v is not None},
        "best_checkpoint": _number(float(np.mean(best))) if best else None,
        "published": table.published.get(row, ""),
        "seeds": seeds,
        "experiment": config.identity(config.to_json(table.rows[row])),
    }


def _best(ours: Sequence[Cell], baseline: Sequence[Cell]) -> dict[str, Any]:
    """The best evaluations of a row, and their difference to those of the baseline.

    The answers of the best evaluation are not kept, so that seeds are the only sample.
    """
    found, theirs = (
        {
            cell.seed: cell.summary()["student"]["best"]["value"]
            for cell in cells
            if cell.finished
        }
        for cells in (ours, baseline)
    )
    both = [s for s in found if s in theirs] if ours != baseline else []
    return {
        "best": _over_seeds([*found.values()]),
        "best_difference": _over_seeds([found[s] - theirs[s] for s in both]),
    }


def _over_seeds(scores: Sequence[float]) -> dict[str, Any] | None:
    if not scores:
        return None
    # In two groups of examples that are alike, examples count as adding nothing.
    groups = np.repeat(np.array(scores)[:, None], 2, axis=1)
    return _described(estimate(np.array(scores), groups))


def _gap(
    metric: Metric,
    teacher: Mapping[str, float],
    baseline: Mapping[int, _Scored],
    able: float | None,
) -> dict[str, Any]:
    """How much there is to gain of the teacher, and whether that can be seen."""
    mean = _mean(baseline, metric.name)
    score = teacher.get(metric.name)
    if mean is None or score is None:
        return {"teacher": score, "gap": None, "told": False}
    gap = (score - mean.mean) * (1 if metric.higher_is_better else -1)
    return {
        "teacher": score,
        "baseline": mean.mean,
        "gap": gap,
        "told": able is not None and gap >= able,
    }


def _claims(
    table: Table, scored: Mapping[str, Mapping[int, _Scored]]
) -> list[dict[str, Any]]:
    metric = table.metrics[0]
    sign = 1 if metric.higher_is_better else -1
    found = [
        _difference(scored[claim.better], scored[claim.than], metric)
        for claim in table.claims
    ]
    corrected = holm([one.p_value if one else math.nan for one in found])
    told = []
    for claim, one, p in zip(table.claims, found, corrected, strict=True):
        entry: dict[str, Any] = {
            "better": claim.better,
            "than": claim.than,
            "source": claim.source,
            "verdict": "cannot be told",
        }
        if one is not None:
            entry |= _described(one) | _tested(one, p)
            if p < ALPHA:
                holds = one.mean * sign > 0
                entry["verdict"] = "holds here" if holds else "does not: the reverse"
        told.append(entry)
    return told


def _described(found: Estimate) -> dict[str, Any]:
    low, high = found.interval()
    return {
        "mean": _number(found.mean),
        "low": _number(low),
        "high": _number(high),
        "num_seeds": found.num_seeds,
    }


def _tested(found: Estimate, corrected: float) -> dict[str, Any]:
    return {"p": _number(found.p_value), "corrected": _number(corrected)}


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return value if math.isfinite(value) else None
