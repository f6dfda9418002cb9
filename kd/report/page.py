"""The page of one run: report.html in its directory, one file that loads nothing."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kd.atomic import atomic_write
from kd.report import figures, samples
from kd.report.files import Run, main_metric, read_run
from kd.report.markup import Markup, document, element, table
from kd.report.quantities import (
    count,
    decimal,
    described,
    duration,
    percent,
    rounded,
    score,
)

Summary = Mapping[str, Any]


def write_page(run_directory: str | Path) -> Path:
    """Writes report.html into the directory of a finished run.

    Args:
        run_directory: see `kd.report.files.read_run` for what it must hold.

    Returns:
        The path of the page; a page that was there is replaced in one step.

    Raises:
        UserError: a file of the run is missing or does not hold what it should.
    """
    page = render(read_run(run_directory))
    path = Path(run_directory) / "report.html"
    with atomic_write(path) as file:
        file.write(page)
    return path


def write_page_or_tell(
    run_directory: str | Path, say: Callable[[str], Any]
) -> Path | None:
    """The same, at the end of a run: a page that fails is told and costs nothing.

    Args:
        run_directory: see `write_page`.
        say: shows a line to the person who waits.

    Returns:
        The path of the page; None without one.
    """
    try:
        return write_page(run_directory)
    except Exception as error:  # whatever drawing runs into, the results are there
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        numbers = Path(run_directory) / "summary.json"
        say(f"no page was drawn: {reason:.300}; the numbers are in {numbers}")
        return None


def render(run: Run) -> str:
    """The page as a string; the same files give the same page."""
    summary = run.summary
    name = str(summary.get("name", run.directory.name))
    return document(
        f"{name}, seed {described(summary.get('seed'))}",
        element("h1", name),
        element("p", " · ".join(_facts(summary)), class_="facts"),
        element("p", _verdict(summary), class_="verdict"),
        _origin(summary),
        _scores(summary),
        element("dl", *_tiles(summary), class_="tiles"),
        *samples.section(run),
        *figures.sections(run),
        element("h2", "What was run"),
        _json("Configuration: every field of the experiment as resolved", run.config),
        _json(
            "Summary: the numbers of this page at full precision",
            {name: part for name, part in summary.items() if name != "task"},
        ),
        element("h2", "Where it was run"),
        table(None, _environment(summary), class_="facts-table"),
    )


def _facts(summary: Summary) -> Iterator[str]:
    yield f"seed {described(summary.get('seed'))}"
    if summary.get("scale"):
        yield f"scale {summary['scale']}"
    if summary.get("finished"):
        yield f"finished {described(summary['finished'])}"


def _verdict(summary: Summary) -> str:
    student, teacher = summary.get("student") or {}, summary.get("teacher") or {}
    main = main_metric(summary)
    name, title = main.get("name", ""), main.get("title", "score")
    final = (summary.get("data") or {}).get("final", "dev")
    sentence = f"The student's {title} on {final} is {score(student.get(name), main)}"
    if not teacher:
        return f"{sentence}; this run had no teacher to compare it with."
    if teacher.get(name) is None:
        return (
            f"{sentence}; its teacher answers another question, so that only its "
            "hidden states taught and there is no score to compare with."
        )
    size = _ratio(student.get("num_params"), teacher.get("num_params"))
    return (
        f"{sentence}, its teacher's {score(teacher.get(name), main)}, "
        f"with {percent(size, digits=1)} of its parameters."
    )


def _origin(summary: Summary) -> Markup:
    """Where the data came from, as a warning where numbers are not comparable."""
    data, teacher = summary.get("data") or {}, summary.get("teacher") or {}
    doubts = []
    if data.get("source") == "bundled":
        doubts.append("a small corpus that comes with the code, not the benchmark")
    if summary.get("scale") == "mini":
        doubts.append("scale mini: small models trained from scratch in minutes")
    return element(
        "div",
        element("strong", f"Data: {described(data.get('origin'))}"),
        ", SHA-256 ",
        element("code", described(data.get("fingerprint"))[:16]),
        _sample(data),
        *(element("p", f"{notice}.") for notice in data.get("notices") or ()),
        element("p", f"Teacher: {teacher['source']}.")
        if teacher.get("source")
        else None,
        element("p", f"Not comparable with published numbers ({'; '.join(doubts)}).")
        if doubts
        else None,
        class_="origin warning" if doubts else "origin",
    )


def _sample(data: Mapping[str, Any]) -> Markup | None:
    """What of the training set was learnt from, where that is not all of it."""
    drawn = data.get("sample") or {}
    num, labelled, changed = (
        drawn.get(f"num_{name}") for name in ("examples", "labelled", "changed_labels")
    )
    answered = drawn.get("num_answered", num)
    whole = num == labelled == answered == data.get("num_train")
    if num is None or (whole and not changed):
        return None
    return element(
        "p",
        f"Trained on {count(num)} of {count(data.get('num_train'))} examples, "
        f"{count(labelled)} of them labelled, {count(changed)} of these as another "
        f"class; teachers may be asked about {count(answered)}.",
    )


def _scores(summary: Summary) -> Markup:
    student, teacher = summary.get("student") or {}, summary.get("teacher") or {}
    data = summary.get("data") or {}
    num_final = data.get("num_final")
    rows: list[tuple[str, ...]] = []
    others = summary.get("others") or {}

    def points(ours: float, theirs: float) -> str:
        return f"{100 * (ours - theirs):+.2f} points".replace("-", "−")

    def plain(ours: float, theirs: float) -> str:
        return f"{ours - theirs:+.4f}".replace("-", "−")

    def shown(value: float | None, metric: Mapping[str, Any]) -> str:
        if value is None or not num_final or not metric.get("is_share"):
            return score(value, metric)
        error = _standard_error(value, num_final)
        return f"{percent(value)[:-2]} ± {100 * error:.2f} %"

    for metric in (summary.get("task") or {}).get("metrics") or []:
        both = student.get(metric["name"]), teacher.get(metric["name"])
        difference = points if metric["percent"] else plain
        rows.append(
            (
                f"{metric['title']} {'↑' if metric['higher_is_better'] else '↓'}",
                shown(both[0], metric),
                *(shown(one.get(metric["name"]), metric) for one in others.values()),
                shown(both[1], metric),
                "" if None in both else difference(*both),  # pyrefly: ignore
                metric["meaning"]
                + (
                    f"; ± one standard error of {count(num_final)} examples"
                    if metric.get("is_share")
                    else ""
                ),
            )
        )
    sizes = student.get("num_params"), teacher.get("num_params")
    rows.append(
        (
            "parameters",
            count(sizes[0]),
            *(count(one.get("num_params")) for one in others.values()),
            count(sizes[1]),
            f"× {decimal(_ratio(*sizes), digits=3)}" if None not in sizes else "",
            "learned weights; the student's as a multiple of the teacher's",
        )
    )
    return table(
        (
            "",
            element("span", "student", class_="student"),
            *others,
            element("span", "teacher", class_="teacher"),
            "difference",
            "what it says",
        ),
        rows,
        class_="scores",
    )


def _tiles(summary: Summary) -> Iterator[Markup]:
    fidelity, speed = summary.get("fidelity") or {}, summary.get("speed") or {}
    student = summary.get("student") or {}

    def tile(name: str, value: str, unit: str) -> Markup:
        unit_ = element("span", unit, class_="unit")
        return element("div", element("dt", name), element("dd", value, unit_))

    for metric in (summary.get("task") or {}).get("fidelity") or []:
        if fidelity.get(metric["name"]) is not None:
            value = score(fidelity[metric["name"]], metric)
            yield tile(metric["title"], value, metric["meaning"])
    best, main = student.get("best") or {}, main_metric(summary)
    if best.get("step") is not None:
        yield tile(
            f"best dev {main.get('title', best.get('metric'))}",
            score(best.get("value"), main),
            f"at step {count(best['step'])}; chosen on dev, so optimistic",
        )
    yield tile(
        "speed",
        count(rounded(speed.get("examples_per_second"))),
        "training examples per second",
    )
    yield tile(
        "training",
        duration(speed.get("seconds_train")),
        f"for {count(speed.get('steps'))} steps",
    )
    if summary.get("teacher_queries") is not None:
        yield tile(
            "teacher queries",
            f"{summary['teacher_queries']:,}",
            "training examples put to a teacher",
        )
    yield tile("teacher", duration(speed.get("seconds_teacher")), "to make it ready")
    yield tile("whole run", duration(speed.get("seconds_total")), "from start to end")


def _environment(summary: Summary) -> Iterator[tuple[str, str]]:
    for part in ("device", "versions"):
        entries = summary.get(part) or {}
        if not isinstance(entries, Mapping):
            entries = {part: entries}
        for name, value in entries.items():
            yield str(name), described(value)


def _json(title: str, tree: Mapping[str, Any]) -> Markup:
    text = json.dumps(tree, indent=2, ensure_ascii=False)
    return element("details", element("summary", title), element("pre", text))


def _standard_error(share: float, num_examples: int) -> float:
    return math.sqrt(share * (1 - share) / num_examples)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None
