"""Heat maps of a transport plan and of its cost, sorted so that structure shows.

Rows are student examples, columns teacher examples, each side in the order
`by_prediction`. Dotted lines show where the predicted class changes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kd.report.svg import COLORS, WIDE, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR, HEIGHT = 0.3, 4.4
"""Inches: of the bars of the marginals, of the whole figure."""

MANY = 20
"""More classes than this are a vocabulary, whose changes are not marked."""


class _Place(NamedTuple):
    """Where the square map is, in inches."""

    left: float
    bottom: float
    side: float


_UNNAMED = _Place(left=0.56, bottom=0.5, side=3.2)
_NAMED = _Place(left=1.12, bottom=1.06, side=2.64)  # room for names on two sides


def transport_plan(
    plan: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
    classes: Sequence[str] = (),
) -> str:
    """The plan, and beside it its row and column sums.

    Dashed lines across the sums show them all equal, as uniform marginals demand.

    Args:
        plan: mass sent from each student example to each teacher example.
        student: probabilities of the rows.
        teacher: probabilities of the columns.
        classes: their names; shown where there are neither two nor many.
    """
    with style():
        figure, axes, place = _heat_map(
            plan, student, teacher, classes, "viridis", unit="mass"
        )
        _column_sums(figure, axes, place, plan[:, by_prediction(teacher)].sum(axis=0))
        _row_sums(figure, axes, place, plan[by_prediction(student)].sum(axis=1))
        return to_svg(figure, name="plan", label="Heat map of the transport plan")


def transport_cost(
    cost: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
    classes: Sequence[str] = (),
) -> str:
    """The cost of a unit of mass, in the order of the plan."""
    with style():
        figure, *_ = _heat_map(cost, student, teacher, classes, "cividis", unit="cost")
        return to_svg(figure, name="cost", label="Heat map of the transport cost")


def by_prediction(probs: Float[np.ndarray, "n v"]) -> Int[np.ndarray, "n"]:
    """Order by predicted class, within a class the surest predictions first.

    Of two classes the order is that of rising probability of class 1 throughout.
    """
    first = probs[:, 0] if probs.shape[1] == 2 else probs.max(axis=1)
    return np.lexsort((-first, probs.argmax(axis=1)))


def row_marginal_error(plan: Float[np.ndarray, "n m"]) -> float:
    """How far the row sums r are from uniform, as a share of the mass.

        error = sum_i |r_i - mass / n| / mass,    mass = sum_i r_i

    Returns:
        0 where all rows send the same, towards 2 where one sends everything.
    """
    sums = plan.sum(axis=1)
    return float(np.abs(sums - sums.mean()).sum() / sums.sum())


def _heat_map(
    values: Float[np.ndarray, "n m"],
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
    classes: Sequence[str],
    color_map: str,
    *,
    unit: str,
) -> tuple["Figure", "Axes", _Place]:
    from matplotlib.figure import Figure

    rows, columns = by_prediction(student), by_prediction(teacher)
    figure = Figure(figsize=(WIDE, HEIGHT))
    named = len(classes) == student.shape[1] and 2 < len(classes) <= MANY
    place = _NAMED if named else _UNNAMED
    axes = _axes_at(figure, place.left, place.bottom, place.side, place.side)
    image = axes.imshow(
        values[rows][:, columns],
        cmap=color_map,
        vmin=0,
        aspect="auto",
        interpolation="none",
    )
    axes.grid(visible=False)
    binary = student.shape[1] == 2
    one = classes[1] if len(classes) == 2 else "class 1"
    order = f"by rising p({one})" if binary else "by predicted class"
    axes.set_ylabel(f"student examples, {order}")
    axes.set_xlabel(f"teacher examples, {order}")
    for boundary in _class_changes(student[rows]):
        axes.axhline(boundary, color="white", linewidth=0.9, linestyle=(0, (1, 2)))
    for boundary in _class_changes(teacher[columns]):
        axes.axvline(boundary, color="white", linewidth=0.9, linestyle=(0, (1, 2)))

    if named:
        at, names = _class_middles(student[rows], classes)
        axes.set_yticks(at, names, fontsize=7)
        at, names = _class_middles(teacher[columns], classes)
        axes.set_xticks(at, names, fontsize=7, rotation=90)
        axes.tick_params(length=0)

    right = place.left + place.side + BAR + 0.2
    scale = _axes_at(figure, right, place.bottom, 0.12, place.side)
    bar = figure.colorbar(image, cax=scale)
    for rectangles in scale.collections:
        rectangles.set_rasterized(True)  # one picture instead of 256
    bar.outline.set_visible(False)
    scale.grid(visible=False)
    scale.yaxis.set_major_formatter("{x:.3g}")
    scale.set_title(unit, loc="left", pad=5)
    return figure, axes, place


def _column_sums(
    figure: "Figure", axes: "Axes", place: _Place, sums: Float[np.ndarray, "m"]
) -> None:
    top = place.bottom + place.side + 0.07
    above = _axes_at(figure, place.left, top, place.side, BAR, sharex=axes)
    edges = np.arange(len(sums) + 1) - 0.5
    above.stairs(sums, edges, fill=True, color=COLORS["teacher"], alpha=0.75)
    above.axhline(
        sums.mean(), color=COLORS["ink"], linewidth=0.8, linestyle=(0, (3, 2))
    )
    above.set_ylim(0, 1.05 * max(sums))
    above.set_title("column sums (dashed: uniform)", loc="left", pad=2)
    above.axis("off")


def _row_sums(
    figure: "Figure", axes: "Axes", place: _Place, sums: Float[np.ndarray, "n"]
) -> None:
    right = place.left + place.side + 0.07
    beside = _axes_at(figure, right, place.bottom, BAR, place.side, sharey=axes)
    edges = np.arange(len(sums) + 1) - 0.5
    beside.stairs(
        sums,
        edges,
        orientation="horizontal",
        fill=True,
        color=COLORS["student"],
        alpha=0.75,
    )
    beside.axvline(
        sums.mean(), color=COLORS["ink"], linewidth=0.8, linestyle=(0, (3, 2))
    )
    beside.set_xlim(0, 1.05 * max(sums))
    beside.set_title("row sums", y=-0.085, loc="left", pad=0)
    beside.axis("off")


def _axes_at(
    figure: "Figure", left: float, bottom: float, width: float, height: float, **shared
) -> "Axes":
    """Axes at a place given in inches."""
    return figure.add_axes(
        (left / WIDE, bottom / HEIGHT, width / WIDE, height / HEIGHT), **shared
    )


def _class_changes(probs: Float[np.ndarray, "n v"]) -> list[float]:
    changes = np.flatnonzero(np.diff(probs.argmax(axis=1))) + 0.5
    return changes.tolist() if len(changes) < MANY else []


def _class_middles(
    probs: Float[np.ndarray, "n v"], classes: Sequence[str]
) -> tuple[list[float], list[str]]:
    """Where the examples of each predicted class have their middle, and its name."""
    predicted = probs.argmax(axis=1)
    found = np.unique(predicted)
    middles = [float(np.flatnonzero(predicted == i).mean()) for i in found]
    names = [
        classes[i] if len(classes[i]) <= 12 else classes[i][:11] + "…" for i in found
    ]
    return middles, names
