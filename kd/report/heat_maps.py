"""Heat maps of a transport plan and of its cost, sorted so that structure shows.

Rows are student examples, columns teacher examples, each side in the order
`by_prediction`. Dotted lines show where the predicted class changes.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from kd.report.svg import COLORS, WIDE, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: the square map, its corner, the bars of the marginals and the whole figure.
SIDE, LEFT, BOTTOM, BAR, HEIGHT = 3.2, 0.56, 0.5, 0.3, 4.4


def transport_plan(
    plan: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
) -> str:
    """The plan, and beside it its row and column sums.

    Dashed lines across the sums show them all equal, as uniform marginals demand.

    Args:
        plan: mass sent from each student example to each teacher example.
        student: probabilities of the rows.
        teacher: probabilities of the columns.
    """
    with style():
        figure, axes = _heat_map(plan, student, teacher, "viridis", unit="mass")
        _column_sums(figure, axes, plan[:, by_prediction(teacher)].sum(axis=0))
        _row_sums(figure, axes, plan[by_prediction(student)].sum(axis=1))
        return to_svg(figure, name="plan", label="Heat map of the transport plan")


def transport_cost(
    cost: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
) -> str:
    """The cost of a unit of mass, in the order of the plan."""
    with style():
        figure, _ = _heat_map(cost, student, teacher, "cividis", unit="cost")
        return to_svg(figure, name="cost", label="Heat map of the transport cost")


def by_prediction(probs: Float[np.ndarray, "n v"]) -> Int[np.ndarray, "n"]:
    """Order by predicted class, within a class by falling probability of class 0.

    With two classes that is the order of rising probability of class 1.
    """
    return np.lexsort((-probs[:, 0], probs.argmax(axis=1)))


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
    color_map: str,
    *,
    unit: str,
) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    rows, columns = by_prediction(student), by_prediction(teacher)
    figure = Figure(figsize=(WIDE, HEIGHT))
    axes = _place(figure, LEFT, BOTTOM, SIDE, SIDE)
    image = axes.imshow(
        values[rows][:, columns],
        cmap=color_map,
        vmin=0,
        aspect="auto",
        interpolation="none",
    )
    axes.grid(visible=False)
    binary = student.shape[1] == 2
    order = "by rising p(class 1)" if binary else "by predicted class"
    axes.set_ylabel(f"student examples, {order}")
    axes.set_xlabel(f"teacher examples, {order}")
    for boundary in _class_changes(student[rows]):
        axes.axhline(boundary, color="white", linewidth=0.9, linestyle=(0, (1, 2)))
    for boundary in _class_changes(teacher[columns]):
        axes.axvline(boundary, color="white", linewidth=0.9, linestyle=(0, (1, 2)))

    scale = _place(figure, LEFT + SIDE + BAR + 0.2, BOTTOM, 0.12, SIDE)
    bar = figure.colorbar(image, cax=scale)
    for rectangles in scale.collections:
        rectangles.set_rasterized(True)  # one picture instead of 256
    bar.outline.set_visible(False)
    scale.grid(visible=False)
    scale.yaxis.set_major_formatter("{x:.3g}")
    scale.set_title(unit, loc="left", pad=5)
    return figure, axes


def _column_sums(figure: "Figure", axes: "Axes", sums: Float[np.ndarray, "m"]) -> None:
    above = _place(figure, LEFT, BOTTOM + SIDE + 0.07, SIDE, BAR, sharex=axes)
    edges = np.arange(len(sums) + 1) - 0.5
    above.stairs(sums, edges, fill=True, color=COLORS["teacher"], alpha=0.75)
    above.axhline(
        sums.mean(), color=COLORS["ink"], linewidth=0.8, linestyle=(0, (3, 2))
    )
    above.set_ylim(0, 1.05 * max(sums))
    above.set_title("column sums (dashed: uniform)", loc="left", pad=2)
    above.axis("off")


def _row_sums(figure: "Figure", axes: "Axes", sums: Float[np.ndarray, "n"]) -> None:
    beside = _place(figure, LEFT + SIDE + 0.07, BOTTOM, BAR, SIDE, sharey=axes)
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


def _place(
    figure: "Figure", left: float, bottom: float, width: float, height: float, **shared
) -> "Axes":
    """Axes at a place given in inches."""
    return figure.add_axes(
        (left / WIDE, bottom / HEIGHT, width / WIDE, height / HEIGHT), **shared
    )


def _class_changes(probs: Float[np.ndarray, "n v"]) -> list[float]:
    changes = np.flatnonzero(np.diff(probs.argmax(axis=1))) + 0.5
    return changes.tolist() if len(changes) < 20 else []  # else a vocabulary
