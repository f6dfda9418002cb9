"""The figures of a page and the sentences that explain them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from kd.evaluate.calibration import reliability
from kd.evaluate.tokens import Tokens, in_bins
from kd.report import heat_maps, plots
from kd.report.files import Run
from kd.report.markup import Markup, element, figure
from kd.report.quantities import decimal, percent
from kd.report.svg import WIDE

TERMS = (
    "Each before its weight, so that one that has stopped falling shows even where it "
    "weighs little. Mean per example, in nats where a loss has no unit of its own; "
    "logarithmic where the fall is long."
)


def sections(run: Run) -> Iterator[Markup]:
    """Headings and figures, each only where the run left the data for it."""
    for heading, introduction, class_, pictures in (
        ("How it learned", None, "figures", _training(run)),
        ("Terms of the loss", TERMS, "figures small", _terms(run)),
        ("How far to trust its confidence", None, "figures aside", _reliability(run)),
        ("What it predicts", None, "figures aside", _numbers(run)),
        ("What the transport plan moves", None, "figures", _transport(run)),
        ("How the optimizer went", None, "figures small", _optimizer(run)),
    ):
        shown = list(pictures)
        if shown:
            yield element("h2", heading)
            if introduction:
                yield element("p", introduction, class_="caption")
            yield element("div", *shown, class_=class_)


def _training(run: Run) -> Iterator[Markup]:
    steps, losses = run.series("train", "loss")
    if len(steps):
        yield figure(
            plots.curve(steps, losses, label="training loss", name="loss", width=WIDE),
            "The weighted sum that is minimised: faint as logged, strong its moving "
            "average.",
        )
    main = run.main
    steps, values = run.series("dev", main.get("name", ""))
    if len(steps):
        title = main.get("title", "score")
        agreed, agreement = run.series("dev", "agreement")
        together = main.get("percent") and np.array_equal(steps, agreed)
        teacher = run.summary.get("teacher") or {}
        yield figure(
            plots.dev_curves(
                steps,
                values,
                title=title,
                percent=bool(main.get("percent")),
                agreement=agreement if together else None,
                others=[
                    (name, *run.series("dev", f"{name}/{main.get('name')}"))
                    for name in run.summary.get("others") or {}
                ],
                teacher=teacher.get("dev"),
            ),
            f"{title[:1].upper()}{title[1:]} on dev at each evaluation"
            + (
                ", with the teacher's as the bar to reach"
                if teacher.get(main.get("name", "")) is not None
                else ""
            )
            + (
                "; agreement counts equal predictions, right or wrong."
                if together
                else "."
            ),
        )


def _terms(run: Run) -> Iterator[Markup]:
    for i, name in enumerate(run.terms()):
        steps, values = run.series("train", name)
        yield figure(
            plots.curve(
                steps, values, label=name.removeprefix("loss/"), name=f"term{i}"
            ),
        )


def _optimizer(run: Run) -> Iterator[Markup]:
    for name, label, smooth, caption in (
        ("grad_norm", "gradient norm", True, "Spikes here explain jumps of the loss."),
        ("learning_rate", "learning rate", False, "The schedule as it was applied."),
        (
            "examples_per_second",
            "examples / s",
            True,
            "Dips are compilation, evaluation or a busy machine.",
        ),
    ):
        steps, values = run.series("train", name)
        if len(steps):
            yield figure(
                plots.curve(steps, values, label=label, name=name, smooth=smooth),
                caption,
            )


def _numbers(run: Run) -> Iterator[Markup]:
    if "targets" not in run.predictions:
        return
    shown = {
        name: run.predictions[f"{name}_numbers"]
        for name in ("student", "teacher")
        if f"{name}_numbers" in run.predictions
    }
    yield figure(
        plots.scatter(run.predictions["targets"], shown),
        "Predicted numbers against the targets, a dot for each example. On the "
        "dotted line a prediction is right.",
    )


def _reliability(run: Run) -> Iterator[Markup]:
    names = ("student", *(run.summary.get("others") or {}), "teacher")
    models = {
        name: reliability(run.predictions[f"{name}_logits"], run.predictions["labels"])
        for name in names
        if f"{name}_logits" in run.predictions
    }
    if "next_tokens" in run.predictions:
        targets, outputs = Tokens().read_predictions(run.predictions)
        models = {n: in_bins(outputs[n], targets) for n in names if n in outputs}
    if models:
        yield figure(
            plots.reliability_diagram(models),
            "Of the examples predicted with 80 % confidence, 80 % should be "
            "right: below the dotted diagonal a model is too sure of itself, above it "
            "not sure enough. Whiskers are 95 % intervals; ECE is the mean distance "
            "from the diagonal. The lower part shows how many examples have which "
            "confidence.",
        )


def _transport(run: Run) -> Iterator[Markup]:
    if not run.plan:
        return
    plan, student, teacher = (
        run.plan[name].astype(np.float64)
        for name in ("plan", "student_probs", "teacher_probs")
    )
    yield figure(
        heat_maps.transport_plan(
            plan, student=student, teacher=teacher, classes=run.classes
        ),
        f"Where the plan sends the mass of {len(plan)} examples, each side sorted "
        "by its own prediction. A thin bright diagonal matches outputs rank by rank; a "
        "broad band is what the entropic regularisation blurs; mass in an off-diagonal "
        "block (see the dotted lines) goes from a student that predicts one class to a "
        "teacher that predicts another. ",
        element("strong", _plan_facts(plan, student, teacher)),
    )
    if "cost" in run.plan:
        cost = run.plan["cost"].astype(np.float64)
        yield figure(
            heat_maps.transport_cost(
                cost, student=student, teacher=teacher, classes=run.classes
            ),
            "The cost of sending one unit of mass, in the same order: a good plan is "
            "bright where this is dark. This plan pays "
            f"{decimal(float((plan * cost).sum()))} in all.",
        )


def _plan_facts(
    plan: Float[np.ndarray, "m m"],
    student: Float[np.ndarray, "m v"],
    teacher: Float[np.ndarray, "m v"],
) -> str:
    total = plan.sum()
    crosses = student.argmax(axis=1)[:, None] != teacher.argmax(axis=1)
    return (
        f"Total mass {decimal(float(total), digits=3)}; row-marginal error "
        f"{decimal(heat_maps.row_marginal_error(plan))} of it (L1). "
        f"{percent(float(np.trace(plan) / total), digits=1)} stays on the same example "
        f"({percent(1 / len(plan), digits=1)} if spread evenly), "
        f"{percent(float(plan[crosses].sum() / total), digits=1)} crosses classes."
    )
