"""Values and gradients of the published codes, for the losses of hidden states.

The arrays in `tests/golden` were computed by the authors' functions in PyTorch, in
float64 or float32 as their dtype says. Feature maps are [b, c, h, w] there and
[b, h, w, c] here.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd.divergences import DKD, KL
from kd.features import (
    NST,
    PKT,
    AttentionTransfer,
    CosineDifference,
    DistanceCorrelation,
    NormAndDirection,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
)
from kd.procedures.procedure import Setting, answers_name
from kd.types import Embedding, Outputs

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@functools.cache
def archive(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


def check(loss, student, value, gradient, tolerance):
    found, found_gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(student))
    assert found.dtype == student.dtype
    np.testing.assert_allclose(found, value, rtol=tolerance)
    np.testing.assert_allclose(
        found_gradient,
        gradient,
        rtol=tolerance,
        atol=tolerance * np.abs(gradient).max(),
    )


def last(maps):
    return jnp.moveaxis(jnp.asarray(maps), 1, -1)


@pytest.mark.parametrize(
    ("case", "loss"),
    [
        ("at_p2", AttentionTransfer()),
        ("nst", NST()),
        ("sp", SimilarityPreserving()),
    ],
)
def test_feature_maps(case, loss):
    golden = archive("classic_baselines")
    teacher = last(golden["feat_teacher"])
    batch = {"mask": jnp.ones(len(teacher), bool)}

    def mean(student):
        ours, theirs = (
            Outputs(jnp.zeros((len(x), 1)), hidden=(x,))
            for x in (last(student), teacher)
        )
        return loss.per_example((), ours, theirs, batch).mean()

    check(
        mean,
        golden["feat_student"],
        golden[f"{case}/loss"],
        golden[f"{case}/grad_feat_student"],
        1e-5,
    )


@pytest.mark.parametrize("case", ["rkd_d25_a50", "pkt"])
def test_pooled_features(case):
    golden = archive("classic_baselines")
    teacher = jnp.asarray(golden["pooled_teacher"])

    def mean(student):
        if case == "pkt":  # the mean over all pairs
            return PKT()(student, teacher).mean() / len(student)
        distance, angle = RKDDistance(), RKDAngle()
        return (25 * distance(student, teacher) + 50 * angle(student, teacher)).mean()

    check(
        mean,
        golden["pooled_student"],
        golden[f"{case}/loss"],
        golden[f"{case}/grad_pooled_student"],
        1e-5,
    )


def code_of_pkt(student, teacher, case, small):
    """The loss of that code: `small` is what it adds to norms and to ratios.

    The 1e-6 under the root of student_t is part of the kernel, here as there.
    """

    def neighbours(kernel):
        return kernel / kernel.sum(axis=1, keepdims=True)

    def cosine(x):
        x = x / (jnp.linalg.norm(x, axis=1, keepdims=True) + small)
        return neighbours((1 + x @ x.T) / 2)

    def student_t(x):
        squared = jnp.square(x[:, None] - x[None]).sum(axis=-1)
        return neighbours(1 / (1 + jnp.sqrt(squared + 1e-6)))

    def jeffreys(p, q):
        return jnp.mean((q - p) * (jnp.log(q) - jnp.log(p)))

    if case == "cosine_kl":
        p, q = cosine(student), cosine(teacher)
        return jnp.mean(q * jnp.log(small + q / (small + p)))
    loss = jeffreys(student_t(student), student_t(teacher))
    if case == "combined":
        loss += jeffreys(cosine(student), cosine(teacher))
    return loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "loss"),
    [
        ("combined", PKT(kernel="both", divergence="jeffreys")),
        ("cosine_kl", PKT()),
        ("student_t_jeffreys", PKT(kernel="student_t", divergence="jeffreys")),
    ],
)
def test_heterogeneous_pkt(case, loss, x64):
    """The code adds 1e-6 to norms and ratios: with it theirs, without it ours."""
    golden = archive("pkt_hetero")
    student, teacher = golden["student_feat"], jnp.asarray(golden["teacher_feat"])
    check(
        lambda student: code_of_pkt(student, teacher, case, small=1e-6),
        student,
        golden[f"{case}/loss"],
        golden[f"{case}/grad_student_feat"],
        1e-11,
    )
    without = jax.value_and_grad(
        lambda student: code_of_pkt(student, teacher, case, small=0.0)
    )
    check(
        lambda student: loss(student, teacher).mean() / len(teacher),
        student,
        *without(jnp.asarray(student)),
        1e-11,
    )


@pytest.mark.parametrize(
    ("case", "loss"),
    [
        ("compute_distance_correlation", DistanceCorrelation()),
        ("compute_cosine_distance_difference", CosineDifference()),
    ],
)
@pytest.mark.parametrize("steps", ["2d", "3d"])
def test_east(case, loss, steps, x64):
    golden = archive("east")
    student, teacher = (golden[x] if steps == "2d" else golden[f"{x}3"] for x in "xy")

    def mean(student):
        if steps == "2d":
            return loss(student, jnp.asarray(teacher)).mean()
        # Each of the time steps by itself.
        over_time = jax.vmap(lambda s, t: loss(s, t), in_axes=1)
        return over_time(student, jnp.asarray(teacher)).mean()

    # The code adds 1e-9 under a root.
    check(
        mean,
        student,
        golden[f"{case}_{steps}/loss"],
        golden[f"{case}_{steps}/grad_x"],
        1e-6,
    )


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_norm_and_direction(factor):
    golden = archive("nd_kdpp")
    loss = NormAndDirection()
    teacher, labels = jnp.asarray(golden["teacher_emb"]), jnp.asarray(golden["labels"])
    means = jnp.asarray(golden["class_means"])[labels]
    check(
        lambda student: (
            factor * loss(student, teacher, labels=labels, means=means).mean()
        ),
        golden["student_emb"],
        golden[f"nd_factor{factor}/loss"],
        golden[f"nd_factor{factor}/grad_student_emb"],
        1e-5,
    )


@pytest.mark.parametrize(
    ("case", "divergence"),
    [
        ("kd_factor2.5_T4", 2.5 * KL(temperature=4.0)),
        ("dkd_a1_b8_T4", 1.0 * DKD(temperature=4.0)),
    ],
)
def test_norm_and_direction_beside_a_divergence(case, divergence):
    """As a step has them: all that the teacher says comes with the batch."""
    golden = archive("nd_kdpp")
    objective = divergence + 2.0 * NormAndDirection()
    labels = jnp.asarray(golden["labels"])
    batch = {
        "mask": jnp.ones(len(labels), bool),
        "labels": labels,
        answers_name(0): jnp.asarray(golden["teacher_logits"]),
        Embedding(-1).name: jnp.asarray(golden["teacher_emb"]),
        Embedding(-1, of="class").name: jnp.asarray(golden["class_means"])[labels],
    }
    setting = Setting({}, (None,), objective, optax.identity())

    @jax.jit
    def total(logits, features):
        student, teacher = Outputs(logits, (features,)), setting.consult((), batch)
        params = {name: () for name in objective.names}
        return objective.apply(params, student, teacher, batch, jnp.int32(0))[0]

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(
        jnp.asarray(golden["student_logits"]), jnp.asarray(golden["student_emb"])
    )
    expected = golden[f"{case}/loss"] + golden["nd_factor2.0/loss"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    names = f"{case}/grad_student_logits", "nd_factor2.0/grad_student_emb"
    for found, name in zip(gradients, names, strict=True):
        scale = np.abs(golden[name]).max()
        np.testing.assert_allclose(found, golden[name], rtol=1e-5, atol=1e-5 * scale)
