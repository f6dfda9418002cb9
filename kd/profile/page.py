"""The page of a profile, one file that loads nothing, and its JSON."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kd.analysis.profile import Layer, Profile
from kd.profile.figures import over_layers
from kd.report.markup import Markup, document, element, figure, table
from kd.report.quantities import count, decimal, described, score

WHAT_IT_IS = (
    "The hierarchical Wasserstein bound (he2024information) is the least over layers "
    "of such scores, of distances between distributions, given the weights and "
    "averaged over trainings. Here distances are between two samples and one network "
    "is looked at; slopes are those at some examples; and the cross-entropy that is "
    "trained on is not Lipschitz in the label. So a score shows where training and dev "
    "come apart and does not bound by how much."
)


def record(
    profile: Profile,
    *,
    summary: Mapping[str, Any],
    origin: str,
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """All that the page says, as plain JSON.

    Args:
        profile: the layers.
        summary: of the run.
        origin: of the data, in a line.
        scores: the task's metrics of "train" and "dev".
    """
    return {
        "kind": "diagnostic, not a bound",
        "run": {key: summary.get(key) for key in ("name", "seed", "scale")},
        "data": origin,
        "sampling": {
            "num_examples": profile.num_examples,
            "num_draws": profile.num_draws,
            "num_points": profile.num_points,
            "seed": profile.seed,
        },
        "funnel": profile.funnel.name,
        "funnel_of_bound": profile.funnel_of_bound.name,
        "layers": [_layer(layer) for layer in profile.layers],
        "scores": {split: dict(values) for split, values in scores.items()},
        "metrics": (summary.get("task") or {}).get("metrics") or [],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    fields = layer._asdict() | {
        "score": layer.score,
        "score_of_bound": layer.score_of_bound,
    }
    # JSON has no word for what is not a number.
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def render(record: Mapping[str, Any]) -> str:
    """The page of a record; the same record gives the same page."""
    run, layers = record["run"], record["layers"]
    title = f"{run['name']}, seed {described(run['seed'])}"
    by_name = {layer["name"]: layer for layer in layers}
    funnel, of_bound = (by_name[record[key]] for key in ("funnel", "funnel_of_bound"))
    drawn = record["sampling"]
    return document(
        f"{title}: layer profile",
        element("h1", title),
        element("p", "Layer profile: training against dev", class_="facts"),
        element(
            "p",
            f"Training and dev are least apart in {funnel['name']}, the funnel: score "
            f"{decimal(funnel['score'], digits=3)} by the slopes at examples; by the "
            f"bounds it is {of_bound['name']}, score "
            f"{decimal(of_bound['score_of_bound'], digits=3)}.",
            class_="verdict",
        ),
        element(
            "div",
            element("strong", "A diagnostic, not a bound. "),
            WHAT_IT_IS,
            class_="origin warning",
        ),
        element(
            "p",
            f"Data: {record['data']}. Distances between samples of "
            f"{count(drawn['num_examples'])} examples, {count(drawn['num_draws'])} "
            f"draws of seed {drawn['seed']}; slopes at {count(drawn['num_points'])} "
            "training examples.",
            class_="caption",
        ),
        element("h2", "How far, and how steep what follows"),
        element("div", *_figures(record), class_="figures"),
        element("h2", "Layer by layer"),
        table(_COLUMNS, map(_row, layers), class_="facts-table"),
        element("h2", "What came of it"),
        table(
            ("", "training", "dev", "difference"),
            _gaps(record),
            class_="facts-table",
        ),
        element("h2", "All numbers"),
        element(
            "details",
            element("summary", "This page at full precision"),
            element("pre", json.dumps(record, indent=2, ensure_ascii=False)),
        ),
    )


def lines(record: Mapping[str, Any]) -> str:
    """The profile on a terminal, at most 80 columns wide."""
    heads = ("layer", "width", "distance", "noise", "slope", "bound", "score")
    keys = ("distance", "noise", "slope", "bound", "score")
    rows = [f"{heads[0]:<11}" + "".join(f"{head:>11}" for head in heads[1:])]
    for layer in record["layers"]:
        marked = " < funnel" if layer["name"] == record["funnel"] else ""
        numbers = "".join(f"{decimal(layer[key], digits=3):>11}" for key in keys)
        rows.append(f"{layer['name']:<11}{count(layer['width']):>11}{numbers}{marked}")
    rows.append(
        f"{'':<11} 1-Wasserstein distance of training from dev, of training from "
        "training\n"
        f"{'':<11} (noise), slope and bound of what follows; a diagnostic, not a bound"
    )
    return "\n".join(rows)


def _figures(record: Mapping[str, Any]) -> Iterator[Markup]:
    layers = record["layers"]
    names = [layer["name"] for layer in layers]
    columns = {key: [layer[key] for layer in layers] for key in layers[0]}
    errors = columns["distance_error"]
    yield figure(
        over_layers(
            names,
            [
                ("training to dev", columns["distance"], "student"),
                ("training to training", columns["noise"], "teacher"),
            ],
            label="1-Wasserstein distance",
            name="distance",
            errors=None if None in errors else errors,
        ),
        "Of a layer's output and the label together. Two samples of training are not "
        "at distance 0 either: only what is above the dashed line tells them apart.",
    )
    yield figure(
        over_layers(
            names,
            [
                ("slope at examples", columns["slope"], "student"),
                ("product of norms", columns["bound"], "teacher"),
            ],
            label="Lipschitz constant of what follows",
            name="tail",
        ),
        "The constant lies between the two: at least the largest slope, at most the "
        "product. Of a network with normalizations the product is far off, as it must "
        "hold where a group of channels is constant.",
    )
    yield figure(
        over_layers(
            names,
            [("score", columns["score"], "student")],
            label="distance × slope",
            name="score",
            marked=names.index(record["funnel"]),
        ),
        "The distance times what follows may make of it, by the slope at examples. The "
        "least is at the dotted line, the generalization funnel.",
    )


_COLUMNS = (
    "layer", "width", "distance", "of training alone", "excess", "slope after it",
    "bound after it", "score", "score by bound",
)  # fmt: skip


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    error = layer["distance_error"]
    spread = "" if error is None else f" ± {decimal(error, digits=3)}"
    numbers = (
        layer["noise"],
        layer["distance"] - layer["noise"],
        layer["slope"],
        layer["bound"],
        layer["score"],
        layer["score_of_bound"],
    )
    return (
        layer["name"],
        count(layer["width"]),
        decimal(layer["distance"], digits=3) + spread,
        *(decimal(number, digits=3) for number in numbers),
    )


def _gaps(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    train, dev = record["scores"]["train"], record["scores"]["dev"]
    for metric in record["metrics"]:
        ours, theirs = train.get(metric["name"]), dev.get(metric["name"])
        if ours is None or theirs is None:
            continue
        difference = decimal(ours - theirs).replace("-", "−")
        if metric["percent"]:
            difference = f"{100 * (ours - theirs):+.2f} points".replace("-", "−")
        yield metric["title"], score(ours, metric), score(theirs, metric), difference
