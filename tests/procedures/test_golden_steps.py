"""Values and gradients of the published codes through a step of each procedure.

A network here is a table of logits and features, so that a step of gradient descent at
rate 1 moves it by the gradient. What the teacher says comes with the batch, as in runs
that cache it, or from a table that runs in the step, or from one that stays, a peer.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.divergences import DIST, DKD, KL, SinKD, SoftCrossEntropy, ValueCorrelation
from kd.features import (
    PKT,
    CosineDifference,
    DistanceCorrelation,
    NormAndDirection,
    RKDAngle,
    RKDDistance,
)
from kd.objective import CrossEntropy, Mix
from kd.procedures.curriculum import Curriculum
from kd.procedures.offline import Offline
from kd.procedures.online import Online, Peer
from kd.procedures.procedure import Setting
from kd.types import Embedding, Model, Outputs, answers_name

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@functools.cache
def archive(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


class Case(NamedTuple):
    """An objective and the numbers of a published code."""

    archive: str
    objective: Mix
    value: str
    gradient: str
    """Of `student`."""
    student: str
    teacher: str
    of: str = "logits"

    def table(self, who: str) -> dict[str, np.ndarray]:
        """Logits and features of a network; what the code has not is any."""
        rows = archive(self.archive)[self.student if who == "student" else self.teacher]
        any_of_them = np.zeros((len(rows), 10))
        tables = {"logits": any_of_them, "features": any_of_them} | {self.of: rows}
        return {name: table.astype(np.float32) for name, table in tables.items()}


LOGITS = ("student_logits", "teacher_logits")
POOLED = ("pooled_student", "pooled_teacher", "features")
SINKD = SinKD(convention="faithful")
ALPHA = 0.8
"""The weight of KD in `sinkd_glue_total`."""

CASES = {
    "SinKD": Case(
        "sinkd_glue_total",
        (1 - ALPHA) * CrossEntropy()
        + ALPHA * SoftCrossEntropy(temperature=3.0, temperature_squared=False)
        + 0.8 * SINKD,
        "kd_a0.8_b0.8_T3.0/loss", "kd_a0.8_b0.8_T3.0/grad_student_logits", *LOGITS,
    ),
    "KD": Case(
        "classic_baselines", 1.0 * KL(temperature=4.0),
        "kd_T4/loss", "kd_T4/grad_student_logits", *LOGITS,
    ),
    "DKD": Case(
        "classic_baselines", 1.0 * DKD(temperature=4.0, alpha=1.0, beta=8.0),
        "dkd_a1_b8_T4/loss", "dkd_a1_b8_T4/grad_student_logits", *LOGITS,
    ),
    "DIST": Case(
        "classic_baselines", 1.0 * DIST(temperature=4.0),
        "dist_b1_g1_tau4.0/loss", "dist_b1_g1_tau4.0/grad_student_logits", *LOGITS,
    ),
    "R2KD": Case(
        "r2kd", 2.0 * ValueCorrelation(temperature=4.0),
        "value_loss_T4_w2/loss", "value_loss_T4_w2/grad_student_logits", *LOGITS,
    ),
    "RKD": Case(
        "classic_baselines", 25 * RKDDistance() + 50 * RKDAngle(),
        "rkd_d25_a50/loss", "rkd_d25_a50/grad_pooled_student", *POOLED,
    ),
    # Of the mean over pairs, 1/m of ours for m examples.
    "PKT": Case(
        "classic_baselines", 1 / 6 * PKT(),
        "pkt/loss", "pkt/grad_pooled_student", *POOLED,
    ),
    "KD++": Case(
        "nd_kdpp", 2.0 * NormAndDirection(),
        "nd_factor2.0/loss", "nd_factor2.0/grad_student_emb",
        "student_emb", "teacher_emb", "features",
    ),
    "EAsT, final": Case(
        "east", 1.0 * DistanceCorrelation(),
        "compute_distance_correlation_2d/loss",
        "compute_distance_correlation_2d/grad_x", "x", "y", "features",
    ),
    "EAsT, cosine": Case(
        "east", 1.0 * CosineDifference(),
        "compute_cosine_distance_difference_2d/loss",
        "compute_cosine_distance_difference_2d/grad_x", "x", "y", "features",
    ),
}  # fmt: skip


def table_of(first: dict[str, np.ndarray]) -> Model:
    """The network that says of example i what is in row i."""

    def apply(params, batch, key):
        del key
        rows = {name: table[batch["index"]] for name, table in params.items()}
        return Outputs(rows["logits"], hidden=(rows["features"],))

    return Model(lambda key, batch: jax.tree.map(jnp.array, first), apply)


def begun(case: Case, procedure: Any, how: str) -> tuple[Any, Any, Any, Any]:
    """The step, its state, the teacher's parameters, and the batch."""
    golden = archive(case.archive)
    tables = {who: case.table(who) for who in ("student", "teacher")}
    num = len(tables["student"]["logits"])
    batch = {"index": jnp.arange(num), "mask": jnp.ones(num, bool)}
    if "labels" in golden:
        batch["labels"] = jnp.asarray(golden["labels"], jnp.int32)
    if "class_means" in golden:
        means = golden["class_means"][golden["labels"]]
        batch[Embedding(-1, of="class").name] = jnp.asarray(means)
    models = {
        name: table_of(tables["student" if name == "student" else "teacher"])
        for name in procedure.objectives(case.objective)
    }
    teachers: tuple[Model | None, ...] = ()
    teacher_params: tuple[Any, ...] = ()
    if how == "live":
        teachers = (table_of(tables["teacher"]),)
        teacher_params = (jax.tree.map(jnp.asarray, tables["teacher"]),)
    elif how == "cached":
        teachers, teacher_params = (None,), (None,)
        batch[answers_name(0)] = jnp.asarray(tables["teacher"]["logits"])
        batch[Embedding(-1).name] = jnp.asarray(tables["teacher"]["features"])
        batch["stratum"] = jnp.zeros(num, jnp.int32)
    setting = Setting(models, teachers, case.objective, optax.sgd(1.0), num_steps=5)
    training = procedure.build(setting)
    first = {
        name: model.init(jax.random.key(0), batch) for name, model in models.items()
    }
    state = training.init(jax.random.key(1), first, teacher_params, batch)
    return training.step, state, teacher_params, batch


PROCEDURES = {
    "offline, cached": (Offline(), "cached"),
    "offline, live": (Offline(), "live"),
    "of one expert": (Curriculum(), "cached"),
    "online, with one that stays": (
        Online(peers=(Peer(objective=0.0 * CrossEntropy()),)), "peer",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("procedure", PROCEDURES)
@pytest.mark.parametrize("name", CASES)
def test_a_step_goes_down_the_gradient_of_the_code(name, procedure):
    case = CASES[name]
    built, how = PROCEDURES[procedure]
    if isinstance(built, Curriculum) and case.objective.reads_hidden:
        pytest.skip("a curriculum has the experts' logits only")
    if how == "peer" and name == "KD++":
        pytest.skip("means of classes over the training set are refused online")
    step, state, teacher_params, batch = begun(case, built, how)
    if how == "peer":  # Which has the weight 0 and wants labels.
        batch = {"labels": jnp.zeros(len(batch["mask"]), jnp.int32)} | batch
    after, metrics = step(state, teacher_params, batch)
    golden = archive(case.archive)
    value, gradient = golden[case.value], golden[case.gradient]
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    before = case.table("student")[case.of]
    # What a number of its size can be moved by.
    rounding = 2 * np.spacing(np.abs(before).max())
    np.testing.assert_allclose(
        before - after.params["student"][case.of],
        gradient,
        rtol=1e-5,
        atol=1e-5 * np.abs(gradient).max() + rounding,
    )
