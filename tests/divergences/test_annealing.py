"""Annealing-KD and Continuation-KD: the properties that define them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_room import experiment_on, write_table

from kd import run
from kd.divergences import (
    ContinuationKD,
    LogitMSE,
    Staircase,
    annealing,
    continuation,
)
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.objective import CrossEntropy
from kd.train import metrics_log
from kd.types import Outputs

STUDENT, TEACHER = (
    Outputs(jnp.asarray(z, jnp.float32))
    for z in np.random.default_rng(0).normal(size=(2, 6, 4))
)
BATCH = {"mask": jnp.arange(6) < 5, "labels": jnp.arange(6) % 4}


def at(mix, step, student=STUDENT.logits, teacher=TEACHER):
    """Loss, metrics and gradient of a mix at a step."""

    @jax.jit
    def evaluate(student):
        params = {name: () for name in mix.names}
        return mix.apply(params, Outputs(student), teacher, BATCH, jnp.int32(step))

    (loss, metrics), gradient = jax.value_and_grad(evaluate, has_aux=True)(student)
    return loss, metrics, gradient


def same(ours, theirs):
    for i in (0, 2):
        np.testing.assert_allclose(ours[i], theirs[i], rtol=1e-6, atol=1e-7)


def code_of_annealing(epoch, num_epochs, highest):
    """T / T_max of the authors' loop, epoch by epoch."""
    level = 1
    for e in range(epoch + 1):
        if e % (num_epochs // highest) == 0 and e > 0:
            level += 1
    return level / highest


def test_the_amplitude_is_that_of_the_code_and_never_above_1():
    # Their 14 epochs of 7 levels, with 5 steps an epoch.
    amplitude = Staircase(7, 2 * 5)
    for step in range(14 * 5):
        expected = code_of_annealing(step // 5, 14, 7)
        np.testing.assert_allclose(amplitude(step), expected, rtol=1e-6)
    # Ten epochs are no multiple of seven levels: the code goes on to 10/7.
    assert code_of_annealing(9, 10, 7) > 1.4
    assert Staircase(7, 1)(9) == 1


def test_a_level_without_steps_is_refused():
    with pytest.raises(ValueError, match="got 0 levels of 5 steps"):
        Staircase(0, 5)
    with pytest.raises(ValueError, match="got 6 levels of 0 steps"):
        annealing(5, num_levels=6)


@pytest.mark.parametrize(("step", "amplitude"), [(0, 0.25), (7, 0.5), (19, 1.0)])
def test_phase_one_regresses_on_a_growing_teacher(step, amplitude):
    found = at(annealing(20, num_levels=4), step)
    assert found[1]["logit_mse/amplitude"] == amplitude
    difference = (STUDENT.logits - amplitude * TEACHER.logits)[:5]
    np.testing.assert_allclose(found[0], jnp.mean(difference**2), rtol=1e-6)
    np.testing.assert_allclose(found[2][:5], difference / 10, rtol=1e-5)


@pytest.mark.parametrize("step", [0, 3, 9])
def test_constant_schedules_give_plain_distillation(step):
    def constant(value):
        return optax.constant_schedule(value)

    plain = 0.25 * CrossEntropy() + (0.75 * 4) * LogitMSE()
    for labels, amplitude, margin in (
        (constant(0.25), constant(1.0), constant(0.0)),
        (0.25, 1.0, 0.0),
    ):
        mix = continuation(10, labels=labels, amplitude=amplitude, margin=margin)
        same(at(mix, step), at(plain, step))


def test_an_infinite_margin_leaves_the_labels():
    teacher = Outputs(TEACHER.logits.at[0, 0].set(-jnp.inf))
    labels = at(0.5 * CrossEntropy(), 0)
    found = at(continuation(10, labels=0.5, margin=jnp.inf), 0, teacher=teacher)
    assert found[1]["loss/continuation"] == 0
    same(found, labels)


def test_a_margin_lets_go_of_the_examples_within_it():
    squared = np.sum((STUDENT.logits - TEACHER.logits) ** 2, axis=1)
    margin = float(np.median(squared))
    losses, gradient = (
        f(STUDENT.logits)
        for f in (
            lambda s: ContinuationKD(margin=margin)(s, TEACHER.logits),
            jax.grad(lambda s: ContinuationKD(margin=margin)(s, TEACHER.logits).sum()),
        )
    )
    within = squared < margin
    assert 0 < within.sum() < 6
    assert not losses[within].any() and not gradient[within].any()
    np.testing.assert_allclose(
        gradient[~within],
        2 * (STUDENT.logits - TEACHER.logits)[~within],
        rtol=1e-5,
    )


def test_by_default_the_teacher_grows_and_then_gives_way_to_the_labels():
    mix = continuation(20)
    weights = [mix.weights(jnp.int32(step)) for step in (0, 10, 20)]
    np.testing.assert_allclose(weights, [[0, 1], [0.5, 0.5], [1, 0]])
    for step, amplitude in ((0, 0.1), (5, 0.55), (10, 1.0), (15, 1.0)):
        metrics = at(mix, step)[1]
        np.testing.assert_allclose(
            metrics["continuation/amplitude"], amplitude, rtol=1e-6
        )
    assert not [*mix.problems_within(20)]


def test_settings_out_of_range():
    with pytest.raises(ValueError, match=r"labels is a share, in \[0, 1\], got 1.5"):
        continuation(10, labels=1.5)
    steep = continuation(10, labels=optax.linear_schedule(0.0, 2.0, 10))
    (line,) = steep.problems_within(10)
    assert line.startswith("the weight of continuation must be finite and not negative")
    margin = continuation(10, margin=optax.linear_schedule(1.0, -1.0, 10))
    (line,) = margin.problems_within(10)
    assert "continuation: margin must be at least 0, got -0.8" in line


@pytest.mark.slow
def test_a_run_with_constant_schedules_is_one_of_plain_distillation(tmp_path, place):
    """Step for step: of two classes the sum is twice the mean, exactly."""
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    recipe = experiment_on(
        tmp_path / "data", Classes(("low", "high")), 1.0 * CrossEntropy()
    )
    constant = optax.constant_schedule
    rows = {}
    for name, objective in {
        "plain": 0.25 * CrossEntropy() + 1.5 * LogitMSE(),
        "continuation": continuation(
            20, labels=constant(0.25), amplitude=constant(1.0), margin=constant(0.0)
        ),
    }.items():
        experiment = dataclasses.replace(
            recipe, teachers=(Network(recipe=recipe),), objective=objective
        )
        run.run(experiment, name, place.workspace)
        found = metrics_log.read(place.workspace.runs / name / "0/metrics.jsonl")
        rows[name] = [
            [row["loss"], row["loss/ce"], row["grad_norm"]]
            for row in found
            if row["split"] == "train"
        ]
    assert len(rows["plain"]) == 20
    np.testing.assert_allclose(rows["continuation"], rows["plain"], rtol=1e-4)
