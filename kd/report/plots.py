"""Figures of one run: plain arrays in, an inline SVG string out.

Student in blue and teacher in orange, everywhere. Shares are given in [0, 1] and
drawn in per cent.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from kd.evaluate.calibration import Reliability
from kd.report.svg import COLORS, NARROW, WIDE, panel, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


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
    factor of 20, because the end of a curve is what one wants to read.

    Args:
        steps: optimizer step of each value, [n], increasing.
        values: [n]; those that are not finite leave a gap.
        label: the quantity and its unit, beside the axis.
        name: identifies the figure on a page.
        smooth: False for what has no noise, such as a schedule: as it is, linear.
        width: of the figure, inches.
    """
    with style():
        figure, axes = panel(width=width, height=0.62 * width)
        main = moving_average(values) if smooth else values
        if smooth:
            axes.plot(steps, values, color=COLORS["student"], alpha=0.3, linewidth=0.6)
        axes.plot(steps, main, color=COLORS["student"])
        axes.yaxis.set_major_formatter("{x:.4g}")
        if smooth:
            _logarithmic_if_wide(axes, main[np.isfinite(main)])
        axes.set_ylabel(label)
        _steps_below(axes)
        return to_svg(figure, name=name, label=f"{label} over the optimizer steps")


def dev_curves(
    steps: Int[np.ndarray, "n"],
    values: Float[np.ndarray, "n"],
    *,
    title: str = "accuracy",
    percent: bool = True,
    agreement: Float[np.ndarray, "n"] | None = None,
    others: Sequence[tuple[str, np.ndarray, np.ndarray]] = (),
    teacher: float | None = None,
) -> str:
    """The main metric of the student on dev, its teacher's, and how often they agree.

    Args:
        steps: optimizer step of each evaluation, [n].
        values: of the metric, [n].
        title: of the metric.
        percent: whether it is a share.
        agreement: share on which student and teacher predict the same class, [n].
        others: name, steps and values of each network that learned beside the student.
        teacher: a constant, drawn as a dashed line.
    """
    with style():
        figure, axes = panel(width=WIDE, height=0.62 * WIDE)
        markersize = 3 if len(steps) <= 40 else 0
        axes.plot(
            steps,
            values,
            color=COLORS["student"],
            marker="o",
            markersize=markersize,
            label=f"student {title}",
        )
        for name, at, found in others:
            axes.plot(
                at,
                found,
                color=COLORS["third"],
                linewidth=1.1,
                linestyle=":",
                marker="v",
                markersize=markersize,
                label=f"{name} {title}",
            )
        if teacher is not None:
            axes.axhline(
                teacher,
                color=COLORS["teacher"],
                linestyle=(0, (5, 3)),
                label=f"teacher {title}",
            )
        if agreement is not None:
            axes.plot(
                steps,
                agreement,
                color=COLORS["third"],
                linewidth=1.1,
                marker="s",
                markersize=markersize,
                label="agreement with teacher",
            )
        axes.set_ylabel("share of dev examples (%)" if percent else title)
        axes.margins(y=0.12)
        if percent:
            _in_percent(axes.yaxis)
        _steps_below(axes)
        axes.legend(loc="best")
        return to_svg(
            figure,
            name="dev",
            label=f"{title[:1].upper()}{title[1:]} on dev over the optimizer steps",
        )


def scatter(
    targets: Float[np.ndarray, "n"], numbers: dict[str, Float[np.ndarray, "n"]]
) -> str:
    """Predicted numbers against their targets.

    Args:
        targets: [n].
        numbers: of "student", "teacher" or both, [n] each.
    """
    with style():
        figure, axes = panel(width=WIDE, height=0.8 * WIDE)
        ends = [min(targets), max(targets)]
        for name in ("teacher", "student"):
            if name in numbers:
                axes.plot(
                    targets,
                    numbers[name],
                    linestyle="none",
                    marker="o",
                    markersize=2,
                    alpha=0.4,
                    color=COLORS[name],
                    label=name,
                )
        axes.plot(ends, ends, color=COLORS["third"], linestyle=":", linewidth=1.1)
        axes.set_xlabel("target")
        axes.set_ylabel("predicted")
        axes.legend(loc="upper left")
        return to_svg(figure, name="numbers", label="Predicted numbers against targets")


def reliability_diagram(models: dict[str, Reliability]) -> str:
    """Accuracy against confidence, and below it how confident the models are.

    Whiskers are 95 % Wilson score intervals: how far a bin of that many examples may
    leave the diagonal by chance.

    Args:
        models: "student", "teacher", and what else learned, by name.
    """
    with style():
        figure, upper = panel(width=WIDE, height=0.95 * WIDE)
        left, bottom, width, height = upper.get_position().bounds
        upper.set_position((left, bottom + 0.3 * height, width, 0.7 * height))
        lower = figure.add_axes((left, bottom, width, 0.24 * height), sharex=upper)

        first = min(
            model.edges[:-1][model.count > 0].min() for model in models.values()
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
            filled = model.count > 0
            accuracy, count = model.accuracy[filled], model.count[filled]
            error = 100 * model.expected_calibration_error
            color = COLORS.get(name, COLORS["third"])
            upper.errorbar(
                model.confidence[filled],
                accuracy,
                yerr=_wilson(accuracy, count),
                color=color,
                ecolor=(color, 0.4),
                elinewidth=1,
                marker={"student": "o", "teacher": "s"}.get(name, "v"),
                markersize=4,
                label=f"{name}, ECE {error:.2f} %",
            )
            lower.stairs(
                model.count / model.count.sum(),
                model.edges,
                color=color,
                linewidth=1.4,
            )
        margin = 0.02 * (1 - first)
        upper.set_xlim(first - margin, 1 + margin)
        upper.set_ylim(top=1.03)
        upper.set_ylabel("accuracy in bin (%)")
        upper.tick_params(labelbottom=False)
        upper.legend(loc="lower right")
        lower.set_ylabel("examples (%)")
        lower.set_xlabel("confidence: probability of the predicted class (%)")
        for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
            _in_percent(axis)
        return to_svg(
            figure,
            name="reliability",
            label="Reliability diagram: accuracy against confidence",
        )


def moving_average(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Centred mean over about a twenty-fifth of the curve, shorter at its ends.

    Centred, so that a drop shows at the step where it happened. Values that are not
    finite are left out of the mean; where there are no others it is NaN.
    """
    finite = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(finite, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(finite)))
    # At the start, where curves are steep, the window shrinks on both sides alike, or
    # the mean would lie beside the curve.
    position = np.arange(len(values))
    reach = np.minimum(len(values) // 50, position)
    low, high = position - reach, np.minimum(position + reach + 1, len(values))
    count = counts[high] - counts[low]
    return np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), np.nan)


def _wilson(
    share: Float[np.ndarray, "n"], count: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "2 n"]:
    """Distances from each share down and up to the ends of its 95 % interval."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    variance = share * (1 - share) / count + z**2 / (4 * count**2)
    half = z * np.sqrt(variance) / (1 + z**2 / count)
    ends = np.stack((share - (centre - half), centre + half - share))
    return np.maximum(ends, 0)  # rounding, where all are right


def _logarithmic_if_wide(axes: "Axes", values: Float[np.ndarray, "n"]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    if not values.size or values.min() <= 0 or values.max() < 20 * values.min():
        return
    axes.set_yscale("log")
    few_decades = values.max() < 1e3 * values.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _steps_below(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _in_percent(axis: "Axis") -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}")
