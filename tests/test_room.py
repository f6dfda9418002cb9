"""What the house has room for: procedures, targets and networks of one's own.

Each is written here alone, runs from experiment to page, and goes on bit for bit.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points import experiment_on, whole_and_resumed, write_table

from kd import run
from kd.divergences import KL, LogitMSE
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.evaluate.metric import Metric
from kd.evaluate.number import Number
from kd.evaluate.target import Target
from kd.experiment import Network
from kd.networks.change import Change
from kd.objective import CrossEntropy, SquaredError
from kd.procedures.procedure import Procedure, shapes_of
from kd.procedures.step import gradient_step
from kd.train import metrics_log
from kd.types import Training, TrainState

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Mutual(Procedure):
    """Two networks that learn from the labels and from each other (DML)."""

    width: int = 6

    def learners(self, student):
        return {"student": student, "peer": dataclasses.replace(student, widths=(6,))}

    def build(self, setting):
        student, peer = setting.learners["student"], setting.learners["peer"]
        ce, kl = CrossEntropy(), KL()

        def init(key, learners, teacher_params, batch):
            assert shapes_of(peer, learners["peer"], batch).logits.shape[1] == 2
            return TrainState(
                step=jnp.int32(0),
                params={**learners, "objective": ()},
                opt_state=setting.optimizer.init({**learners, "objective": ()}),
                key=key,
            )

        def terms(params, teacher_params, batch, key, step):
            s = student.apply(params["student"], batch, jax.random.fold_in(key, 0))
            p = peer.apply(params["peer"], batch, jax.random.fold_in(key, 1))
            mask = batch["mask"]
            pairs = (s.logits, p.logits), (p.logits, s.logits)
            losses = [
                jnp.sum(
                    ce(own, batch["labels"], where=mask) + kl(own, other, where=mask)
                )
                / jnp.sum(mask)
                for own, other in pairs
            ]
            return losses, {"loss": losses[0] + losses[1], "loss/peer": losses[1]}

        step = gradient_step(
            terms, setting, names=["student", "peer"], weights=lambda step: [1.0, 1.0]
        )
        return Training(init, step)


def test_a_procedure_with_two_networks_that_learn(place, tmp_path):
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    target = Classes(("low", "high"))
    experiment = experiment_on(
        tmp_path / "data", target, 1.0 * CrossEntropy(), procedure=Mutual()
    )
    summary, page = whole_and_resumed(experiment, place)
    assert summary["others"]["peer"]["num_params"] == 2 * 6 + 6 + 6 * 2 + 2
    assert summary["others"]["peer"]["accuracy"] > 0.6
    assert summary["student"]["accuracy"] > 0.6
    assert '<th scope="col">peer</th>' in page and "peer accuracy" in page
    assert f"peer, ECE {100 * summary['others']['peer']['ece']:.2f} %" in page
    watched = dataclasses.replace(experiment, term_gradients="watched")
    run.run(watched, "watched", place.workspace)
    rows = metrics_log.read(place.workspace.runs / "watched/0/metrics.jsonl")
    assert rows[0]["gradient/peer"] > 0


def cosine(outputs, targets):
    return float(np.cos(np.arctan2(outputs[:, 1], outputs[:, 0]) - targets).mean())


@dataclasses.dataclass(frozen=True)
class Angle(Target):
    """A direction in the plane: two outputs, an angle as the target."""

    labels: tuple[str, ...] = ("across", "up")  # pyrefly: ignore
    targets_name = "angles"
    outputs_name = "vectors"

    official = metrics = watched = (  # pyrefly: ignore
        Metric("cosine", "cosine", "of the angle between, on average", cosine),
    )
    fidelity = ()  # pyrefly: ignore
    has_classes = False  # pyrefly: ignore

    def parse(self, text):
        return float(text)

    def array(self, values):
        return np.asarray(values, np.float32)

    def problem(self, targets):
        return "" if np.isfinite(targets).all() else "an angle is not finite"

    def ensemble(self, outputs):
        return sum(outputs) / len(outputs)


@dataclasses.dataclass(frozen=True)
class Turned(SquaredError):
    """Squared distance from the point of the unit circle at the target's angle."""

    name = "turned"

    def __call__(self, student, targets, *, where=None):
        points = jnp.stack([jnp.cos(targets), jnp.sin(targets)], axis=1)
        losses = jnp.square(student - points).sum(axis=1)
        return losses if where is None else jnp.where(where, losses, 0)


def test_a_task_of_another_kind(place, tmp_path):
    write_table(tmp_path / "data", lambda x, y: np.arctan2(y, x))
    recipe = experiment_on(tmp_path / "data", Angle(), 1.0 * Turned())
    experiment = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        objective=1.0 * Turned() + 1.0 * LogitMSE(),
    )
    summary, page = whole_and_resumed(experiment, place)
    assert summary["student"]["cosine"] > 0.5
    assert summary["task"]["main"] == summary["student"]["best"]["metric"] == "cosine"
    assert "The student&#x27;s cosine on dev" in page or "student's cosine" in page
    with pytest.raises(ValueError, match="kl compares predicted classes"):
        dataclasses.replace(experiment, objective=1.0 * KL())


@dataclasses.dataclass(frozen=True)
class Pruned(Change):
    """The share of each matrix that is smallest in size set to 0."""

    share: float = 0.5

    def __call__(self, network, params):
        def prune(leaf):
            leaf = np.asarray(leaf)
            if leaf.ndim < 2:
                return leaf
            bound = np.quantile(np.abs(leaf), self.share)
            return np.where(np.abs(leaf) >= bound, leaf, 0)

        return network, params and jax.tree.map(prune, params)


def test_a_network_made_from_another(place, tmp_path):
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    recipe = experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )
    trained = Network(recipe=recipe)
    pruned = dataclasses.replace(trained, change=Pruned(0.5))
    # A chain: the assistant starts from the teacher's pruned weights and learns from
    # both; the student learns from the assistant.
    assistant = dataclasses.replace(
        recipe,
        teachers=(trained, pruned),
        start=pruned,
        objective=1.0 * CrossEntropy() + 1.0 * KL(),
    )
    experiment = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=assistant),),
        start=pruned,
        objective=1.0 * KL(),
    )
    summary, _ = whole_and_resumed(experiment, place)
    _, said = place
    assert summary["teacher"]["accuracy"] > 0.6
    # Three networks from recipes, each trained once.
    assert len(list(place.workspace.runs.glob("networks/*/summary.json"))) == 2
    assert sum("training it in" in line for line in said) == 2
    assert any(line.startswith("weights to start from: its recipe") for line in said)
    # The pruned one is another network: its answers are not the teacher's.
    cached = list(place.workspace.runs.glob("networks/answers/*.npy"))
    assert len(cached) == 3


def test_what_does_not_go_together_is_refused(place, tmp_path):
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    recipe = experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )
    run.run(recipe, "labels", place.workspace)
    own = str(place.workspace.runs / "labels" / "0")
    itself = dataclasses.replace(recipe, start=Network(place=own), num_steps=21)
    with pytest.raises(UserError, match="is the folder of this run itself"):
        run.run(itself, "labels", place.workspace)
    config = place.workspace.runs / "labels/0/model/config.json"
    other = json.loads(config.read_text()) | {"id2label": {"0": "high", "1": "low"}}
    config.write_text(json.dumps(other))
    taught = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe), Network(place=own)),
        objective=1.0 * KL(),
    )
    with pytest.raises(UserError, match="teacher's classes are high, low in this ord"):
        run.run(taught, "taught", place.workspace)


def test_a_regression(place, tmp_path):
    write_table(tmp_path / "data", lambda x, y: 2.5 + np.clip(x + y, -2.5, 2.5))
    recipe = experiment_on(tmp_path / "data", Number(0.0, 5.0), 1.0 * SquaredError())
    experiment = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        objective=0.5 * SquaredError() + 0.5 * LogitMSE(),
    )
    summary, page = whole_and_resumed(experiment, place)
    assert summary["student"]["pearson"] > 0.5
    assert -1 <= summary["fidelity"]["pearson"] <= 1
    assert "Predicted numbers against the targets" in page
    rows = metrics_log.read(place.workspace.runs / "whole/0/metrics.jsonl")
    assert {"pearson", "spearman", "mse", "teacher_pearson"} <= rows[-1].keys()
