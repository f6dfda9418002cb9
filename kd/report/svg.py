"""Matplotlib figures as SVG strings that live inside an HTML page.

A figure is drawn in the fixed `COLORS`; in the string each becomes a CSS variable
with that colour as its fallback, so the page recolours figures for a dark scheme
and the same string still looks right on its own, in a notebook for instance.
The same arrays give the same bytes: no date, no random identifiers.
"""

import contextlib
import html
import io
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, made to be told apart with any colour vision.
COLORS = {
    "student": "#0072b2",
    "teacher": "#d55e00",
    "third": "#009e73",
    "ink": "#24292f",
    "muted": "#6a737d",
    "grid": "#d8dee4",
}

WIDE, NARROW = 4.9, 3.2
"""Widths of figures in inches: two or three to a row of the page."""

PIXELS_PER_INCH = 105
"""Size on the page; makes the 9 pt of the figures 13 px, like a caption."""


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw inside this: fonts, lines and colours of every figure.

    What a `matplotlibrc` or a notebook has set does not show, and stays as it is.
    """
    matplotlib = _import()

    settings = {
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "axes.labelcolor": COLORS["ink"],
        "axes.edgecolor": COLORS["muted"],
        "axes.titlecolor": COLORS["ink"],
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": COLORS["grid"],
        "grid.linewidth": 0.6,
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": COLORS["ink"],
        "lines.linewidth": 1.6,
        "text.color": COLORS["ink"],
        "text.parse_math": False,  # a dollar in a name is a dollar
        "xtick.color": COLORS["muted"],
        "ytick.color": COLORS["muted"],
        "xtick.labelcolor": COLORS["ink"],
        "ytick.labelcolor": COLORS["ink"],
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "svg.fonttype": "none",  # text stays text: selectable, in the page's font
        "svg.hashsalt": "kd",
    }
    defaults = dict(matplotlib.rcParamsDefault)
    del defaults["backend"]  # not put back at the end, and not used
    with matplotlib.rc_context(defaults | settings):
        yield


def _import() -> Any:
    """Matplotlib; here, as it takes a second that only a report should pay.

    It raises at a backend that it does not have, as that of a notebook in a process
    which the notebook started. None is used: a figure draws itself.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib

        return matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def panel(*, width: float, height: float) -> tuple["Figure", "Axes"]:
    """An empty figure of this size in inches with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    left, right, bottom, top = 0.68, 0.12, 0.48, 0.16  # inches for the labels
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            1 - (left + right) / width,
            1 - (bottom + top) / height,
        )
    )
    return figure, axes


def to_svg(figure: "Figure", *, name: str, label: str) -> str:
    """The figure as one `<svg>` element.

    Args:
        figure: drawn inside `style()`, and passed here inside it.
        name: distinguishes identifiers of several figures on one page.
        label: what a screen reader says instead of the picture.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Would apply to the whole page; its content goes on the element instead.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    # Identifiers are global on an HTML page, and matplotlib calls every axes axes_1.
    text = text.replace(' id="', f' id="{name}-')
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for color_name, color in COLORS.items():
        text = text.replace(color, f"var(--{color_name}, {color})")
    width, height = figure.get_size_inches()
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {72 * width:g} {72 * height:g}" role="img" '
        f'aria-label="{html.escape(label)}" style="width: '
        f"{PIXELS_PER_INCH * width:.0f}px; max-width: 100%; height: auto; "
        f"font-family: system-ui, sans-serif; "
        f'stroke-linejoin: round; stroke-linecap: butt">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()
