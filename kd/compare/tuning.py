"""Which settings of a table's rows are tried: as many of one row as of another."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kd import config
from kd.errors import UserError
from kd.experiment import Experiment

Setting = tuple[str, ...]
"""Changes of a row, each "field=value"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tried before a table: settings of a grid, each with the same seeds.

    The settings of a row are the product of the values of those fields that it has: KL
    has no weight of SinKD. So rows may have different numbers of settings; they have
    the same number of trials, which are drawn at random, always alike, from the
    settings of a row that has more.

    Attributes:
        grid: values by fields of an experiment: numbers, or texts as they are given
            on the command line.
        seeds: that every setting is tried with; none of them may be the table's.
        trials: settings tried of every row; 0, or more than the row with the fewest
            settings has: as many as that has.
    """

    grid: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...] = (100, 101)
    trials: int = 0

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if not self.grid:
            yield "the grid has no fields"
        for field, values in self.grid.items():
            if field == "seed":
                yield "the grid has the seed; say with which seeds to tune in seeds"
            if isinstance(values, str) or not len(values):
                yield f"the grid gives {field} no values; expected some in brackets"
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            yield (
                f"seeds of tuning must be at least one and all different, got "
                f"{self.seeds}"
            )
        if self.trials < 0 or self.trials == 1:
            yield (
                f"trials must be at least 2, or 0 for as many as there are, got "
                f"{self.trials}"
            )

    def draw(self, rows: Mapping[str, Experiment]) -> "Trials":
        """The settings that are tried of every row.

        Raises:
            UserError: a field that no row has, a value that does not fit it or is
                there twice, or a row with a single setting.
        """
        for field in self.grid:
            if wrong := config.no_field(rows.values(), field):
                raise UserError(f"the grid: {wrong}")
        values = {name: self._values(row) for name, row in rows.items()}
        there = {
            name: math.prod(len(texts) for texts in own.values())
            for name, own in values.items()
        }
        few = min(there, key=lambda name: there[name])
        if there[few] < 2:
            raise UserError(
                f"the grid leaves row {few!r} one setting, so with an equal budget no "
                "row has a choice; add values of a field that every row has, such as "
                "optimizer.learning_rate"
            )
        num = min(self.trials or there[few], there[few])
        return Trials(
            settings={name: _drawn(own, num) for name, own in values.items()},
            there=there,
            num=num,
        )

    def _values(self, row: Experiment) -> dict[str, list[str]]:
        """The part of the grid that a row has, as on the command line."""
        own = {}
        for field, values in self.grid.items():
            if config.no_field([row], field):
                continue
            texts = [str(value) for value in values]
            runs = [_identity(changed(row, (f"{field}={text}",))) for text in texts]
            for i, text in enumerate(texts):
                if (first := runs.index(runs[i])) < i:
                    raise UserError(
                        f"the grid: {field}={texts[first]} and {field}={text} are the "
                        "same run; leave one out"
                    )
            own[field] = texts
        return own


class Trials(NamedTuple):
    """The settings that are tried."""

    settings: dict[str, list[Setting]]
    """By row, equally many of each."""
    there: dict[str, int]
    """How many a row has."""
    num: int
    """How many are tried of each."""


def _drawn(values: Mapping[str, Sequence[str]], num: int) -> list[Setting]:
    """Different settings at random, in the grid's order: all, if there are so many.

    Rows with the same values have the same ones.
    """
    shape = [len(texts) for texts in values.values()]
    random = np.random.default_rng(0)
    places = random.choice(math.prod(shape), num, replace=False, shuffle=False)
    chosen = np.stack(np.unravel_index(np.sort(places), shape), axis=1)
    return [
        tuple(
            f"{field}={texts[i]}"
            for (field, texts), i in zip(values.items(), row, strict=True)
        )
        for row in chosen
    ]


def changed(row: Experiment, setting: Setting) -> Experiment:
    """A row with a setting.

    Raises:
        UserError: it does not fit the row.
    """
    try:
        return config.override(row, *setting).sharing_data()
    except ValueError as error:
        raise UserError(f"a recipe does not fit the data: {error}") from error


def _identity(experiment: Experiment) -> Any:
    return config.identity(config.to_json(experiment))


_FIELD = r"[^\s=\[\],]+=\[[^\[\]]*\]"


def grid_in(text: str) -> dict[str, tuple[str, ...]]:
    """The grid that a text says, such as "optimizer.learning_rate=[3e-4,1e-3]".

    Raises:
        UserError: it says none.
    """
    if not re.fullmatch(rf"\s*{_FIELD}(\s+{_FIELD})*\s*", text):
        raise UserError(
            f"GRID={text!r:.80}: expected field=[value,value] for every field, such as "
            '"optimizer.learning_rate=[3e-4,1e-3] optimizer.warmup=[0,0.1]"'
        )
    grid: dict[str, tuple[str, ...]] = {}
    for part in re.findall(_FIELD, text):
        field, _, values = part.partition("=")
        texts = tuple(value.strip() for value in values[1:-1].split(","))
        if field in grid:
            raise UserError(f"GRID: {field} is there twice; give its values once")
        if not all(texts):
            raise UserError(f"GRID: {field}={values} lacks a value between commas")
        grid[field] = texts
    return grid
