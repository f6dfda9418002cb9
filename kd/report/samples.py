"""What student and teacher write, side by side."""

from collections.abc import Iterator

from kd.report.files import Run
from kd.report.markup import Markup, element, table


def section(run: Run) -> Iterator[Markup]:
    """Heading and table, where the run left samples."""
    if not run.samples:
        return
    names = [name for name in ("student", "teacher") if name in run.samples[0]]
    yield element("h2", "What it writes")
    yield element(
        "p",
        "After prompts of the split that is scored, spread evenly over it; beside them "
        "what stands there in the data.",
        class_="caption",
    )
    yield table(
        ("prompt", "in the data", *(element("span", n, class_=n) for n in names)),
        [
            (sample["prompt"], sample["reference"], *(sample[n] for n in names))
            for sample in run.samples
        ],
        class_="scores samples",
    )
