"""Values and gradients of the authors' code (2018cx/SinKD), in float64.

The arrays in `tests/golden` were computed by the authors' functions in PyTorch.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.divergences import KL, SinKD, SoftCrossEntropy, TotalVariation
from kd.objective import CrossEntropy

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BATCHWISE = np.load(GOLDEN / "sinkd_batchwise_glue.npz")
SWEEP = np.load(GOLDEN / "sinkd_batchwise_sweep.npz")
TOTAL = np.load(GOLDEN / "sinkd_glue_total.npz")
SAMPLEWISE = np.load(GOLDEN / "sinkd_samplewise_removed.npz")

FAITHFUL = SinKD(convention="faithful")


def check(loss, student, expected_value, expected_gradient):
    exact = expected_gradient.dtype == np.float64
    tolerance = 1e-9 if exact else 1e-5
    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(student))
    assert value.dtype == student.dtype == expected_gradient.dtype
    np.testing.assert_allclose(value, expected_value, rtol=tolerance, atol=1e-12)
    # Entries near zero are compared with the size of the gradient as a whole.
    largest = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=tolerance,
                               atol=tolerance * largest)  # fmt: skip


def cases(archive, key):
    return sorted(name.rpartition("/")[0] for name in archive if name.endswith(key))


@pytest.mark.parametrize("case", cases(BATCHWISE, "/student_logits"))
def test_batchwise(case, x64):
    student, teacher, plan, cost = (
        BATCHWISE[f"{case}/{name}"]
        for name in ("student_logits", "teacher_logits", "plan", "cost")
    )
    check(
        lambda s: FAITHFUL(s, jnp.asarray(teacher)).mean(),
        student,
        BATCHWISE[f"{case}/loss"],
        BATCHWISE[f"{case}/grad_student_logits"],
    )
    tolerance = 1e-12 if student.dtype == np.float64 else 1e-5
    found_plan, found_cost = jax.jit(SinKD().plan)(
        jnp.asarray(student), jnp.asarray(teacher)
    )
    np.testing.assert_allclose(found_cost, cost, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        found_plan * len(student), plan, rtol=tolerance, atol=tolerance
    )
    raw = jax.jit(SinKD())(jnp.asarray(student), jnp.asarray(teacher)).sum()
    np.testing.assert_allclose(raw, BATCHWISE[f"{case}/raw_sinkhorn"], rtol=tolerance)


@pytest.mark.parametrize("case", cases(SWEEP, "/raw_sinkhorn"))
def test_batchwise_at_other_settings(case, x64):
    temperature, epsilon, num_iters = (
        part.lstrip("tauepsi") for part in case.split("_")
    )
    loss = SinKD(
        temperature=float(temperature), epsilon=float(epsilon), num_iters=int(num_iters)
    )
    check(
        lambda s: loss(s, jnp.asarray(SWEEP["teacher_logits"])).sum(),
        SWEEP["student_logits"],
        SWEEP[f"{case}/raw_sinkhorn"],
        SWEEP[f"{case}/grad_student_logits"],
    )


@pytest.mark.parametrize("case", cases(TOTAL, "/sinkhorn_scaled"))
def test_total_objective(case, x64):
    alpha, beta, temperature = (
        float(part.strip("abT")) for part in case.removeprefix("kd_").split("_")
    )
    teacher = jnp.asarray(TOTAL["teacher_logits"])
    labels = jnp.asarray(TOTAL["labels"])
    soft = SoftCrossEntropy(temperature=temperature, temperature_squared=False)

    def objective(student):
        return (
            (1 - alpha) * CrossEntropy()(student, labels).mean()
            + alpha * soft(student, teacher).mean()
            + beta * FAITHFUL(student, teacher).mean()
        )

    check(
        objective,
        TOTAL["student_logits"],
        TOTAL[f"{case}/loss"],
        TOTAL[f"{case}/grad_student_logits"],
    )
    student = jnp.asarray(TOTAL["student_logits"])
    parts = {
        "ce": CrossEntropy()(student, labels).mean(),
        "kd": soft(student, teacher).mean(),
        "sinkhorn_scaled": jax.jit(FAITHFUL)(student, teacher).mean(),
    }
    for name, value in parts.items():
        np.testing.assert_allclose(value, TOTAL[f"{case}/{name}"], rtol=1e-9)


@pytest.mark.parametrize("epoch", range(6))
def test_annealed_temperature(epoch, x64):
    # From 4 in the first to 1 in the last of 6 epochs.
    temperature = 4 + epoch * (1 - 4) / 5
    soft = SoftCrossEntropy(temperature=temperature, temperature_squared=False)
    kl = KL(temperature=temperature, temperature_squared=False)
    student = TOTAL["student_logits"]
    teacher = jnp.asarray(TOTAL["teacher_logits"])
    gradient = TOTAL[f"anneal_T4_E6/epoch{epoch}/grad_student_logits"]
    value = TOTAL[f"anneal_T4_E6/epoch{epoch}/kd"]
    check(lambda s: soft(s, teacher).mean(), student, value, gradient)
    # The KL differs by the teacher's entropy, which has no gradient.
    np.testing.assert_allclose(
        jax.grad(lambda s: kl(s, teacher).mean())(jnp.asarray(student)),
        gradient,
        rtol=1e-9,
        atol=1e-12,
    )


def test_samplewise_ablation_is_total_variation(x64):
    teacher = jnp.asarray(SAMPLEWISE["teacher_logits"])
    check(
        lambda s: 0.002 * TotalVariation()(s, teacher).sum(),
        SAMPLEWISE["student_logits"],
        SAMPLEWISE["loss"],
        SAMPLEWISE["grad_student_logits"],
    )
