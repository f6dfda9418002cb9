"""Pictures of a profile: quantities over the layers, as SVG."""

from collections.abc import Sequence

from kd.report.svg import COLORS, WIDE, panel, style, to_svg


def over_layers(
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float], str]],
    *,
    label: str,
    name: str,
    marked: int | None = None,
    errors: Sequence[float] | None = None,
) -> str:
    """Quantities of every layer, from the inputs to the logits.

    The axis is logarithmic where they span more than a factor of 20.

    Args:
        names: of the layers.
        series: name, values and colour (a key of `COLORS`) of each quantity.
        label: the quantity and its unit, beside the axis.
        name: identifies the figure on a page.
        marked: a layer to point out.
        errors: standard errors of the first series.
    """
    with style():
        from matplotlib.ticker import NullFormatter

        figure, axes = panel(width=WIDE, height=0.68 * WIDE)
        places = range(len(names))
        for i, (title, values, color) in enumerate(series):
            axes.errorbar(
                places,
                values,
                yerr=errors if i == 0 else None,
                color=COLORS[color],
                linestyle="-" if i == 0 else (0, (4, 2)),
                marker="o" if i == 0 else "s",
                markersize=4,
                label=title,
            )
        everything = [value for _, values, _ in series for value in values]
        if min(everything) > 0 and max(everything) > 20 * min(everything):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
        if marked is not None:
            axes.axvline(
                marked, color=COLORS["muted"], linestyle=(0, (2, 2)), linewidth=1
            )
        axes.set_xticks([*places], [*names], rotation=30 if len(names) > 5 else 0)
        axes.set_ylabel(label)
        if len(series) > 1:
            axes.legend(loc="best")
        return to_svg(figure, name=name, label=f"{label} of every layer")
