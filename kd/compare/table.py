"""What a table is: which experiments, which seeds, which metric, against which row.

A module in `experiments/tables/` returns one. Its rows are experiments like any other,
made by the functions in `experiments/`, so that nothing of a row is said twice.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from kd import config
from kd.compare.tuning import Tuning
from kd.evaluate.metric import Metric
from kd.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one row is better than another, as somebody published.

    Attributes:
        better: the row that is said to be better.
        than: the other.
        source: who says so: a key of `references.bib` and where.
    """

    better: str
    than: str
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A comparison of experiments.

    Attributes:
        rows: experiments by the names that are shown, in order. Their seeds are those
            of the table.
        baseline: the row that all others are compared with.
        seeds: that every row is run with; intervals need two, five say little.
        metric: what rows are compared by, of the task's metrics and measures of
            fidelity; the task's main one if empty.
        also: other metrics that are shown, with the same intervals.
        differ_in: what the rows may differ in beside student, start, objective,
            optimizer, procedure and view: fields of an experiment such as "teachers",
            "batch_size", or of its data such as "data.fraction".
        claims: of papers, tested by the table.
        published: a value of the metric that a paper reports for a row, as text, with
            its source: what stands beside ours.
        tuning: which settings `make sweep` tries; the table then runs with those that
            it selected.
        protocol: how a row is scored: "last", by its last checkpoint; "paper" shows
            beside that the best of an evaluation every 5 steps, as the authors' code
            of SinKD reports it, with the differences that come of it.
    """

    rows: Mapping[str, Experiment]
    baseline: str
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: str = ""
    also: tuple[str, ...] = ()
    differ_in: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tuning: Tuning | None = None
    protocol: Literal["last", "paper"] = "last"

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if not self.rows:
            yield "the table has no rows"
            return
        names = ", ".join(self.rows)
        if self.baseline not in self.rows:
            yield f"the baseline {self.baseline!r} is no row; the rows are {names}"
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            yield f"seeds must be at least one and all different, got {self.seeds}"
        for claim in self.claims:
            for name in (claim.better, claim.than):
                if name not in self.rows:
                    yield f"a claim names {name!r}, which is no row ({names})"
        for name in self.published:
            if name not in self.rows:
                yield f"a published value is of {name!r}, which is no row ({names})"
        if self.tuning and (both := {*self.seeds} & {*self.tuning.seeds}):
            which = ", ".join(map(str, sorted(both)))
            yield f"seeds {which} are of the table and of its tuning; tune with others"
        if self.protocol not in ("last", "paper"):
            yield f"protocol must be last or paper, got {self.protocol!r}"
        target = self.target
        for metric in filter(None, (self.metric, *self.also)):
            try:
                target.metric(metric)
            except ValueError as error:
                yield str(error)
        yield from self._differences()

    def _differences(self) -> Iterator[str]:
        """Rows that cannot stand in one table: refused with both named."""
        first, *others = self.rows
        ours = _compared(self.rows[first], self.differ_in)
        for name in others:
            theirs = _compared(self.rows[name], self.differ_in)
            found = config.differences(theirs, ours)
            if found:
                path, _, values = found[0].partition(": ")
                left, _, right = values.partition(" -> ")
                field = ".".join(path.split(".")[: 2 if path.startswith("data") else 1])
                yield (
                    f"rows {first!r} and {name!r} are on different {path}: "
                    f"{left:.60} and {right:.60}; a table that is about this says "
                    f"differ_in=({field!r},)"
                )

    @property
    def target(self) -> Any:
        """What the task of all rows asks for."""
        return next(iter(self.rows.values())).data.target

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that are shown, the one that rows are compared by first."""
        main = self.metric or self.target.main.name
        names = dict.fromkeys((main, *self.also))
        return tuple(self.target.metric(name) for name in names)

    def cell(self, row: str, seed: int) -> Experiment:
        """The experiment of one row and seed."""
        experiment = dataclasses.replace(self.rows[row], seed=seed)
        if self.protocol == "paper":
            return dataclasses.replace(experiment, evaluate_every=PAPER_EVALUATES_EVERY)
        return experiment


PAPER_EVALUATES_EVERY = 5
"""Steps, in the code of cui2024sinkhorn, which reports the best of all evaluations."""


_FREE = (
    "student", "start", "objective", "optimizer", "procedure", "view", "answers",
    "keep", "term_gradients", "seed",
)  # fmt: skip
"""What methods are about. The rest, data, teachers and budget, is the same in every
row: else a difference has two causes."""


def _compared(experiment: Experiment, but: tuple[str, ...]) -> dict[str, Any]:
    tree = config.identity(config.to_json(experiment))
    for path in (*_FREE, *but):
        *groups, field = path.split(".")
        node = tree
        for group in groups:
            node = node.get(group, {})
        node.pop(field, None)
    return tree
