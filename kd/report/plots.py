"""Figures of one run: plain arrays in, an inline SVG string out.

Student in blue and teacher in orange, everywhere. Losses are in nats; shares are
given in [0, 1] and drawn in per cent.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from kd.evaluate.calibration import Reliability
from kd.report.svg import COLORS, panel, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 4.9  # inches; two to a row of the page
NARROW = 3.2  # three to a row


def curve(
    steps: Int[np.ndarray, "n"],
    values: Float[np.ndarray, "n"],
    *,
    label: str,
    name: str,
    smooth: bool = True,
    width: float = NARROW,
) -> str:
    """A quantity over training: the raw values faint, their moving average strong.

    The axis is logarithmic where the average stays positive and spans more than a
    factor of 20, because the end of such a curve is what one wants to read.

    Args:
        steps: optimizer step of each value, [n], increasing.
        values: [n]; those that are not finite leave a gap.
        label: the quantity and its unit, beside the axis.
        name: identifies the figure on a page.
        smooth: draw the average too; False for what has no noise, like a schedule.
        width: of the figure, inches.
    """
    with style():
        figure, axes = panel(width=width, height=0.62 * width)
        strong = moving_average(values) if smooth else values
        if smooth:
            axes.plot(steps, values, color=COLORS["student"], alpha=0.25, linewidth=0.7)
        axes.plot(steps, strong, color=COLORS["student"])
        finite = strong[np.isfinite(strong)]
        if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
            axes.set_yscale("log")
        axes.set_ylabel(label)
        _step_axis(axes)
        return to_svg(figure, name=name, label=f"{label} over the optimizer steps")


def dev_curves(
    steps: Int[np.ndarray, "n"],
    accuracy: Float[np.ndarray, "n"],
    *,
    agreement: Float[np.ndarray, "n"] | None = None,
    teacher_accuracy: float | None = None,
) -> str:
    """Accuracy of the student on dev, its teacher's, and how often they agree.

    Args:
        steps: optimizer step of each evaluation, [n].
        accuracy: share of dev examples that the student gets right, [n].
        agreement: share on which student and teacher predict the same class, [n].
        teacher_accuracy: a constant, drawn as a dashed line.
    """
    with style():
        figure, axes = panel(width=WIDE, height=0.62 * WIDE)
        marks = {"marker": "o", "markersize": 3 if len(steps) <= 40 else 0}
        axes.plot(
            steps, accuracy, color=COLORS["student"], label="student accuracy", **marks
        )
        if teacher_accuracy is not None:
            axes.axhline(
                teacher_accuracy,
                color=COLORS["teacher"],
                linestyle=(0, (5, 3)),
                label="teacher accuracy",
            )
        if agreement is not None:
            axes.plot(
                steps,
                agreement,
                color=COLORS["third"],
                linewidth=1.1,
                label="agreement with teacher",
                **marks,
            )
        axes.set_ylabel("share of dev examples (%)")
        axes.margins(y=0.12)
        _percent(axes.yaxis)
        _step_axis(axes)
        axes.legend(loc="lower right")
        return to_svg(
            figure, name="dev", label="Accuracy on the dev set over the optimizer steps"
        )


def reliability_diagram(models: dict[str, Reliability]) -> str:
    """Accuracy against confidence, and below it how confident the models are.

    Whiskers are 95 % Wilson intervals: how far a bin of that many examples may
    leave the diagonal by chance.

    Args:
        models: "student", "teacher" or both.
    """
    with style():
        figure, upper = panel(width=WIDE, height=0.95 * WIDE)
        left, bottom, width, height = upper.get_position().bounds
        upper.set_position((left, bottom + 0.3 * height, width, 0.7 * height))
        lower = figure.add_axes((left, bottom, width, 0.24 * height), sharex=upper)

        first = min(
            float(np.asarray(model.edges)[:-1][np.asarray(model.count) > 0].min())
            for model in models.values()
        )
        upper.plot(
            (first, 1),
            (first, 1),
            color=COLORS["muted"],
            linestyle=(0, (2, 2)),
            linewidth=1,
            label="perfectly calibrated",
        )
        for name, model in models.items():
            count = np.asarray(model.count)
            filled = count > 0
            confidence = np.asarray(model.confidence)[filled]
            accuracy = np.asarray(model.accuracy)[filled]
            error = 100 * float(model.expected_calibration_error)
            upper.errorbar(
                confidence,
                accuracy,
                yerr=_wilson(accuracy, count[filled]),
                color=COLORS[name],
                ecolor=(COLORS[name], 0.45),
                elinewidth=1,
                marker="o" if name == "student" else "s",
                markersize=4,
                label=f"{name}, ECE {error:.1f} %",
            )
            lower.stairs(
                count / count.sum(),
                np.asarray(model.edges),
                color=COLORS[name],
                linewidth=1.4,
            )
        upper.set_xlim(first, 1.005)
        upper.set_ylim(top=1.02)
        upper.set_ylabel("accuracy in bin (%)")
        upper.tick_params(labelbottom=False)
        upper.legend(loc="upper left" if first < 0.4 else "lower right")
        lower.set_ylabel("examples (%)")
        lower.set_xlabel("confidence: probability of the predicted class (%)")
        for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
            _percent(axis)
        return to_svg(
            figure,
            name="reliability",
            label="Reliability diagram: accuracy against confidence",
        )


def transport_plan(
    plan: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
) -> str:
    """The plan as a heat map, its marginals beside it.

    Both sides are sorted by `by_prediction`; dotted lines show where the predicted
    class changes. Dashed lines beside the map are the uniform marginals.

    Args:
        plan: mass sent from student example (row) to teacher example (column).
        student: probabilities of the rows.
        teacher: probabilities of the columns.
    """
    return _heat_map(
        plan,
        student,
        teacher,
        unit="mass",
        name="plan",
        color_map="viridis",
        marginals=True,
    )


def transport_cost(
    cost: Float[np.ndarray, "n m"],
    *,
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
) -> str:
    """The ground cost that the plan pays, sorted like the plan."""
    return _heat_map(
        cost,
        student,
        teacher,
        unit="cost per unit of mass",
        name="cost",
        color_map="cividis",
        marginals=False,
    )


def by_prediction(probs: Float[np.ndarray, "n v"]) -> Int[np.ndarray, "n"]:
    """Order by predicted class, within a class by falling probability of class 0.

    With two classes that is the order of rising probability of class 1.
    """
    return np.lexsort((-probs[:, 0], probs.argmax(axis=1)))


def row_marginal_error(plan: Float[np.ndarray, "n m"]) -> float:
    """Share of the mass by which row sums miss being equal: L1 / total, in [0, 2]."""
    total = plan.sum()
    return float(np.abs(plan.sum(axis=1) - total / len(plan)).sum() / total)


def moving_average(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Centred mean over about a twenty-fifth of the curve, shorter at its ends.

    Values that are not finite are left out of the mean; a window of nothing else is
    NaN. Centred, so that a drop shows at the step where it happened.
    """
    half = len(values) // 50
    finite = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    position = np.arange(len(values))
    # The window shrinks on both sides alike near an end, or the mean would be biased.
    reach = np.minimum(half, np.minimum(position, len(values) - 1 - position))
    low, high = position - reach, position + reach + 1
    count = counts[high] - counts[low]
    mean = (sums[high] - sums[low]) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def _heat_map(
    values: Float[np.ndarray, "n m"],
    student: Float[np.ndarray, "n v"],
    teacher: Float[np.ndarray, "m v"],
    *,
    unit: str,
    name: str,
    color_map: str,
    marginals: bool,
) -> str:
    from matplotlib.figure import Figure

    rows, columns = by_prediction(student), by_prediction(teacher)
    num_rows, num_columns = values.shape
    num_classes = student.shape[1]
    with style():
        # Inches, from the left and the bottom: the map is a square of side 3.3.
        width, height, side, left, bottom = WIDE, 4.45, 3.3, 0.5, 0.5
        figure = Figure(figsize=(width, height))

        def add(x: float, y: float, w: float, h: float, **shared) -> "Axes":
            return figure.add_axes(
                (x / width, y / height, w / width, h / height), **shared
            )

        axes = add(left, bottom, side, side)
        image = axes.imshow(
            values[rows][:, columns],
            cmap=color_map,
            vmin=0,
            aspect="auto",
            interpolation="none",
        )
        axes.grid(visible=False)
        order = (
            "rising p(class 1)" if num_classes == 2 else "predicted class, dotted lines"
        )
        axes.set_ylabel(f"student examples, by {order}")
        axes.set_xlabel(f"teacher examples, by {order}")
        dots = {"color": "white", "linewidth": 0.9, "linestyle": (0, (1, 2))}
        for boundary in _class_changes(student[rows]):
            axes.axhline(boundary, **dots)
        for boundary in _class_changes(teacher[columns]):
            axes.axvline(boundary, **dots)

        bar = add(left + side + (0.6 if marginals else 0.15), bottom, 0.12, side)
        scale = figure.colorbar(image, cax=bar)
        scale.solids.set_rasterized(True)  # else 256 rectangles
        scale.outline.set_visible(False)
        scale.set_label(unit)
        bar.yaxis.set_major_formatter("{x:.3g}")

        if marginals:
            above = add(left, bottom + side + 0.08, side, 0.34, sharex=axes)
            beside = add(left + side + 0.08, bottom, 0.34, side, sharey=axes)
            dashes = {
                "color": COLORS["muted"],
                "linewidth": 0.9,
                "linestyle": (0, (3, 2)),
            }
            total = values.sum()
            above.stairs(
                values[:, columns].sum(axis=0),
                np.arange(num_columns + 1) - 0.5,
                fill=True,
                color=COLORS["teacher"],
                alpha=0.75,
            )
            above.axhline(total / num_columns, **dashes)
            beside.stairs(
                values[rows].sum(axis=1),
                np.arange(num_rows + 1) - 0.5,
                orientation="horizontal",
                fill=True,
                color=COLORS["student"],
                alpha=0.75,
            )
            beside.axvline(total / num_rows, **dashes)
            above.set_ylim(bottom=0)
            beside.set_xlim(left=0)
            for side_axes in (above, beside):
                side_axes.axis("off")
            above.set_title("column sums: teacher mass", loc="left", pad=3)
            beside.text(
                1.02, 1.02, "row sums", transform=beside.transAxes, ha="right"
            )
        return to_svg(figure, name=name, label=f"Heat map: {unit}")


def _class_changes(probs: Float[np.ndarray, "n v"]) -> list[float]:
    changes = np.flatnonzero(np.diff(probs.argmax(axis=1))) + 0.5
    return changes.tolist() if len(changes) < 20 else []  # else a vocabulary


def _wilson(
    share: Float[np.ndarray, "n"], count: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "2 n"]:
    """Distances from each share down and up to its 95 % Wilson score interval."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = (
        z
        / (1 + z**2 / count)
        * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    )
    return np.maximum(np.stack((share - (centre - half), centre + half - share)), 0)


def _step_axis(axes: "Axes") -> None:
    axes.set_xlabel("optimizer step")
    axes.margins(x=0.02)
    axes.xaxis.get_major_locator().set_params(nbins=6, integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _percent(axis) -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}")
