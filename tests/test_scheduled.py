"""Settings of losses that follow the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kd import config
from kd.divergences import JS, KL, LogitMSE, PerSequence, PerToken, SinKD, SkewedKL
from kd.objective import CrossEntropy
from kd.scheduled import scheduled
from kd.types import Outputs

STUDENT, TEACHER = (
    Outputs(jnp.asarray(z, jnp.float32))
    for z in np.random.default_rng(0).normal(size=(2, 6, 4))
)
BATCH = {"mask": jnp.arange(6) < 5, "labels": jnp.zeros(6, jnp.int32)}
FALLING = optax.linear_schedule(4.0, 1.0, 10)


@jax.jit
def gradient(step):
    def total(student):
        mix = 0.5 * CrossEntropy() + 1.0 * scheduled(KL(), temperature=FALLING)
        params = {"ce": (), "kl": ()}
        return mix.apply(params, Outputs(student), TEACHER, BATCH, step)

    return jax.grad(total, has_aux=True)(STUDENT.logits)


@pytest.mark.slow
@pytest.mark.parametrize("step, temperature", [(0, 4.0), (5, 2.5), (99, 1.0)])
def test_temperature_follows_the_step(step, temperature):
    found, metrics = gradient(jnp.int32(step))
    mix = 0.5 * CrossEntropy() + 1.0 * KL(temperature=temperature)

    def total(student):
        params = {"ce": (), "kl": ()}
        return mix.apply(params, Outputs(student), TEACHER, BATCH, jnp.int32(step))[0]

    np.testing.assert_allclose(
        found, jax.grad(total)(STUDENT.logits), rtol=1e-5, atol=1e-7
    )
    assert metrics["kl/temperature"] == temperature


@pytest.mark.parametrize(
    "loss, name", [(SkewedKL(), "skew"), (JS(), "beta"), (LogitMSE(), "amplitude")]
)
def test_other_settings(loss, name):
    moving = scheduled(loss, **{name: optax.constant_schedule(0.25)})
    fixed = type(loss)(**{name: 0.25})
    batch = BATCH | {"step": jnp.int32(3)}

    def evaluate(loss):
        return jax.jit(loss.per_example)((), STUDENT, TEACHER, batch)

    np.testing.assert_allclose(evaluate(moving), evaluate(fixed), rtol=1e-6)


def test_a_setting_of_a_loss_inside():
    batch = {
        "mask": jnp.ones(2, bool),
        "prediction_mask": jnp.ones((2, 3), bool),
        "step": jnp.int32(10),
    }
    student, teacher = (Outputs(o.logits.reshape(2, 3, 4)) for o in (STUDENT, TEACHER))
    moving = scheduled(PerToken(KL()), **{"loss.temperature": FALLING})
    found = moving.per_example((), student, teacher, batch)
    expected = PerToken(KL()).per_example((), student, teacher, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="KL has no setting"):
        scheduled(KL(), skew=FALLING)


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (optax.constant_schedule(0.0), "got 0.0, by its schedule at step 0"),
        (
            optax.linear_schedule(4.0, -1.0, 5),
            "got -1.0000001192092896, by its schedule at step 5",
        ),
        (lambda step: jnp.where(step == 7, jnp.nan, 1.0), "got nan, by its schedule a"),
    ],
)
def test_a_schedule_that_leaves_the_range_of_its_setting(schedule, problem):
    loss = scheduled(KL(), temperature=schedule)
    assert f"temperature must be positive, {problem}" in loss.problem_within(10)
    assert not scheduled(KL(), temperature=FALLING).problem_within(10)
    (line,) = (1.0 * CrossEntropy() + PerToken(loss)).problems_within(10)
    assert line.startswith("kl: temperature must be positive")


def test_a_weight_that_becomes_negative():
    mix = optax.linear_schedule(1.0, -1.0, 4) * CrossEntropy() + FALLING * KL()
    (line,) = mix.problems_within(10)
    assert line == (
        "the weight of ce must be finite and not negative; at step 3 its schedule "
        "gives -0.5"
    )
    assert not [*mix.problems_within(3)]


@pytest.mark.parametrize(
    "loss, path", [(SinKD(), "num_iters"), (KL(), "temperature_squared")]
)
def test_settings_that_are_no_real_numbers_are_refused(loss, path):
    with pytest.raises(ValueError, match="not a number that can follow the step"):
        scheduled(loss, **{path: FALLING})


@pytest.mark.parametrize("wrapper", [PerToken, PerSequence])
def test_inside_of_tokens(wrapper):
    batch = {
        "mask": jnp.ones(2, bool),
        "prediction_mask": jnp.ones((2, 3), bool),
        "step": jnp.int32(10),
    }
    student, teacher = (Outputs(o.logits.reshape(2, 3, 4)) for o in (STUDENT, TEACHER))
    inside = wrapper(scheduled(KL(), temperature=FALLING))
    found = inside.per_example((), student, teacher, batch)
    expected = wrapper(KL()).per_example((), student, teacher, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_scheduled_is_recorded():
    first, second = (
        config.to_json(scheduled(KL(), temperature=optax.linear_schedule(4.0, 1.0, n)))
        for n in (10, 20)
    )
    assert first != second and "schedule" in str(first)
