# %% [markdown]
# # Add your own divergence
#
# One class. What follows checks it, compares it with others and distils with it. The
# same in words, and the tests that it gets for one line: `docs/add_your_own.md`.

# %%
import importlib.util
import pathlib
import subprocess
import sys

REPOSITORY = ""  # where kd is not installed: its address, as `git clone` takes it

if pathlib.Path("../kd").is_dir():  # in a clone
    sys.path.insert(0, "..")
if importlib.util.find_spec("kd") is None:
    if not REPOSITORY:
        raise SystemExit("set REPOSITORY in this cell to the address of the repository")
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"git+{REPOSITORY}"]
    subprocess.run(command, check=True)

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from kd.divergences import JS, KL, Divergence, ReverseKL
from kd.divergences.softened import Rescaled
from kd.objective import CrossEntropy
from kd.types import Outputs

STUDENT, TEACHER, THIRD, MUTED = "#0072b2", "#d55e00", "#009e73", "#6a737d"
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "font.size": 9,
        "legend.frameon": False,
        "axes.prop_cycle": plt.cycler(color=[STUDENT, TEACHER, THIRD, "#cc79a7"]),
    }
)


# %%
@dataclasses.dataclass(frozen=True)
class LeCam(Rescaled, Divergence):
    """Vincze-Le Cam distance.

        losses_i = temperature^2 / 2 sum_v (p_iv - q_iv)^2 / (p_iv + q_iv)

    Between 0 and 1 at temperature 1.
    """

    name = "le_cam"

    def rows(self, student, teacher, where):
        del where
        p, q = jnp.exp(self.soften(student)), jnp.exp(self.soften(teacher))
        total = jnp.where(p + q > 0, p + q, 1)
        return self.factor / 2 * jnp.sum((p - q) ** 2 / total, axis=-1)


# %% [markdown]
# Masks, half precision and the constant teacher come with it.

# %%
random = np.random.default_rng(0)
student, teacher = jnp.asarray(random.normal(0, 2, (2, 6, 4)), jnp.bfloat16)
mask = jnp.array([True, True, True, True, False, True])
losses = LeCam()(student.at[4].set(jnp.nan), teacher, where=mask)
print(losses.dtype, losses)
gradient = jax.grad(lambda t: LeCam()(student, t).sum())(teacher)
print("gradient of the teacher:", float(jnp.abs(gradient).max()))

# %% [markdown]
# The gradient against finite differences:

# %%
student, teacher = (jnp.asarray(x, jnp.float32) for x in (student, teacher))
direction = jnp.asarray(random.normal(size=student.shape), jnp.float32)
along = lambda step: LeCam()(student + step * direction, teacher).mean()  # noqa: E731
print("automatic:         ", float(jax.grad(along)(0.0)))
print("finite differences:", float((along(1e-2) - along(-1e-2)) / 2e-2))

# %% [markdown]
# ## Beside others

# %%
probabilities = jnp.linspace(0.001, 0.999, 200)


def logits_of(p):
    """Of two classes, the second with probability p."""
    return jnp.stack([jnp.log1p(-p), jnp.log(p)], axis=-1)


fixed = logits_of(jnp.full(200, 0.8))
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
for loss in (LeCam(), KL(), ReverseKL(), JS()):
    values = loss(logits_of(probabilities), fixed)
    margins = logits_of(probabilities)
    slopes = jax.grad(lambda z, loss=loss: loss(z, fixed).sum())(margins)[:, 1]
    left.plot(probabilities, values, label=type(loss).__name__)
    right.plot(probabilities, slopes)
for ax in (left, right):
    ax.axvline(0.8, color=MUTED, lw=0.8, ls=":")
    ax.set_xlabel("student's probability (dotted: the teacher's)")
left.set(
    ylim=(0, 1.5), ylabel="loss (nats; Le Cam: 1)", title="Le Cam is bounded, as JS"
)
right.set(
    ylim=(-1, 0.6),
    ylabel="gradient of the logit",
    title="so a student that is far off is hardly corrected",
)
left.legend()
plt.show()

# %% [markdown]
# ## Distil with it
#
# A random network is the teacher, a linear student learns from it and from its noisy
# labels. An objective reads like its formula.

# %%
objective = 0.1 * CrossEntropy() + 0.9 * LeCam(temperature=2.0)

keys = jax.random.split(jax.random.key(0), 4)
inputs = jax.random.normal(keys[0], (512, 16))
hidden = jnp.tanh(inputs @ jax.random.normal(keys[1], (16, 32)))
teacher_logits = hidden @ jax.random.normal(keys[2], (32, 5))
labels = jax.random.categorical(keys[3], teacher_logits)
batch = {"mask": jnp.ones(512, bool), "labels": labels}
optimizer = optax.adam(0.05)


def total(weights, step):
    student = Outputs(inputs @ weights)
    return objective.apply(
        {"ce": (), "le_cam": ()}, student, Outputs(teacher_logits), batch, step
    )


@jax.jit
def train(weights):
    def one(carry, step):
        weights, state = carry
        gradient, metrics = jax.grad(total, has_aux=True)(weights, step)
        updates, state = optimizer.update(gradient, state)
        agreed = jnp.argmax(inputs @ weights, 1) == jnp.argmax(teacher_logits, 1)
        metrics["agreement"] = jnp.mean(agreed)
        return (optax.apply_updates(weights, updates), state), metrics

    return jax.lax.scan(one, (weights, optimizer.init(weights)), jnp.arange(200))[1]


history = jax.device_get(train(jnp.zeros((16, 5))))
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
left.plot(history["loss/le_cam"], label="Le Cam, temperature 2")
left.plot(history["loss/ce"], label="cross-entropy with the labels")
left.set(xlabel="step", ylabel="loss, before its weight", ylim=(0, None))
left.set_title("Both terms of the mix fall")
left.legend()
right.plot(100 * history["agreement"], color=THIRD)
right.set(
    xlabel="step",
    ylabel="same prediction as the teacher (%)",
    ylim=(0, 100),
    title=f"A linear student agrees on {100 * history['agreement'][-1]:.0f} % of the "
    "training examples",
)
plt.show()
