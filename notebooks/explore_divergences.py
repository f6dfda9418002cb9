# %% [markdown]
# # What a divergence asks of the student
#
# A student that is too small for its teacher cannot agree with it everywhere. The
# divergence decides where it gives up. Runs on a CPU in a minute.

# %%
import pathlib
import subprocess
import sys

REPOSITORY = ""  # outside of a clone of it: its address, as `git clone` takes it

CLONE = ".." if pathlib.Path("../kd").is_dir() else "kd-ot"
if not pathlib.Path(CLONE).is_dir():
    if not REPOSITORY:
        raise SystemExit("set REPOSITORY in this cell to the address of the repository")
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, CLONE], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"./{CLONE}"]
    subprocess.run(command, check=True)
sys.path.insert(0, CLONE)

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from docs import conventions_page
from docs.conventions_page import page
from kd.divergences import (
    JS,
    KL,
    Hellinger,
    ReverseKL,
    SinKD,
    SkewedKL,
    TotalVariation,
)
from kd.transport.line_exact import exact_row_costs

try:
    from ipywidgets import FloatLogSlider, interact
except ImportError:  # then pictures stand still
    interact = None
try:
    from IPython.display import Markdown, display
except ImportError:
    Markdown, display = str, print

STUDENT, TEACHER, THIRD, MUTED = "#0072b2", "#d55e00", "#009e73", "#6a737d"
COLORS = [STUDENT, TEACHER, THIRD, "#cc79a7", "#e69f00", "#56b4e9"]
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
        "axes.prop_cycle": plt.cycler(color=COLORS),
    }
)

# %% [markdown]
# ## One bump for two
#
# The teacher has two modes, the student is a single normal curve with a mean and a width
# to learn. Each divergence is minimised from several starts; the best is drawn.

# %%
grid = jnp.linspace(-6, 6, 241)


def normal(mean, deviation):
    """Logits of a normal curve on the grid."""
    return -0.5 * ((grid - mean) / deviation) ** 2


teacher = jnp.logaddexp(
    jnp.log(0.6) + normal(-2.0, 0.6) - jnp.log(0.6),
    jnp.log(0.4) + normal(2.2, 0.8) - jnp.log(0.8),
)


@functools.partial(jax.jit, static_argnums=0)
def fit(divergence):
    """Means, deviations and losses found from several starts."""
    optimizer = optax.adam(0.05)

    def loss(params):
        student = normal(params["mean"], jnp.exp(params["log_deviation"]))
        return divergence(student[None], teacher[None])[0]

    def from_start(mean):
        params = {"mean": mean, "log_deviation": jnp.float32(0.0)}

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(
            step, (params, optimizer.init(params)), length=600
        )
        return params["mean"], jnp.exp(params["log_deviation"]), loss(params)

    return jax.vmap(from_start)(jnp.array([-3.0, -1.5, 0.1, 1.5, 3.0]))


fits = {}
for divergence in (
    KL(),
    ReverseKL(),
    JS(),
    SkewedKL(skew=0.3),
    Hellinger(),
    TotalVariation(),
):
    means, deviations, losses = fit(divergence)
    best = int(jnp.argmin(losses))
    fits[type(divergence).__name__] = float(means[best]), float(deviations[best])

# %%
spacing = float(grid[1] - grid[0])


def covered(mean, deviation):
    """How much of each teacher mode lies under the student."""
    p, q = jax.nn.softmax(normal(mean, deviation)), jax.nn.softmax(teacher)
    overlap = jnp.minimum(p, q)
    return [float(jnp.sum(overlap, where=side)) for side in (grid < 0, grid >= 0)]


figure, axes = plt.subplots(2, 3, figsize=(9.5, 4.6), sharex=True, sharey=True)
for ax, (name, (mean, deviation)) in zip(axes.flat, fits.items(), strict=True):
    left, right = covered(mean, deviation)
    if deviation > 1.5:
        finding = "averages"
    elif right < 0.05:
        finding = "collapses"
    else:
        finding = "does neither"
    ax.fill_between(
        grid,
        jax.nn.softmax(teacher) / spacing,
        color=TEACHER,
        alpha=0.25,
        lw=0,
        label="teacher",
    )
    ax.plot(grid, jax.nn.softmax(normal(mean, deviation)) / spacing, label="student")
    ax.set_title(f"{name} {finding}")
    ax.text(
        0.98,
        0.9,
        f"mean {mean:.1f}, deviation {deviation:.1f}",
        transform=ax.transAxes,
        ha="right",
        color=MUTED,
    )
axes[0, 0].legend(loc="center right")
for ax in axes[1]:
    ax.set_xlabel("outcome")
for ax in axes[:, 0]:
    ax.set_ylabel("density")
figure.suptitle(
    "To average is to expect what never happens, to collapse is to miss a mode",
    x=0.02,
    ha="left",
    size=11,
)
plt.show()

# %% [markdown]
# The argument of SinKD (cui2024sinkhorn) for geometry starts here: forward KL averages,
# reverse KL collapses. And JS *underestimates*, as the next picture shows: once student
# and teacher barely overlap it hardly tells far from farther.
#
# ## When they do not overlap
#
# Two normal curves of width 1, moved apart. Transport moves samples of one onto samples
# of the other and pays by the distance.

# %%
distances = jnp.linspace(0.0, 10.0, 81)
wide = jnp.linspace(-12, 18, 3001)
samples = jnp.asarray(np.random.default_rng(0).normal(size=256), jnp.float32)
masses = jnp.full(256, 1 / 256)


def apart(divergence):
    def loss(distance):
        student, teacher = -0.5 * (wide - distance) ** 2, -0.5 * wide**2
        return divergence(student[None], teacher[None])[0]

    return loss


def transported(distance):
    costs = exact_row_costs(samples + distance, samples, masses, masses, scale=1.0)
    return jnp.sum(costs)


compared = {
    "KL": apart(KL()),
    "JS": apart(JS()),
    "total variation": apart(TotalVariation()),
    "transport": transported,
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
for name, loss in compared.items():
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss)))(distances)
    left.plot(distances, values, label=name)
    right.plot(distances[1:], jnp.maximum(jnp.abs(slopes[1:]), 1e-8))
    right.annotate(
        name,
        (distances[-1], max(abs(slopes[-1]), 1e-8)),
        xytext=(4, -9 if name == "total variation" else -1),
        textcoords="offset points",
        color=right.lines[-1].get_color(),
    )
left.set(
    ylim=(0, 6),
    xlabel="distance of the means (widths)",
    ylabel="loss (nats; widths)",
    title="JS and total variation soon reach their largest value …",
)
left.legend()
right.set(
    yscale="log",
    ylim=(1e-6, 30),
    xlim=(0, 12.5),
    ylabel="slope of the loss",
    xlabel="distance of the means (widths)",
    title="… and no longer pull; KL and transport do",
)
plt.show()

# %% [markdown]
# ## Temperature
#
# Softening shrinks the gradient like 1 / temperature². The factor temperature² undoes it,
# which is why a weight found at one temperature only carries over to codes that have it.

# %%
random = np.random.default_rng(1)
student_logits, teacher_logits = jnp.asarray(
    random.normal(0, 2, (2, 32, 10)), jnp.float32
)


def gradient_norm(divergence):
    def loss(student):
        return divergence(student, teacher_logits).mean()

    return float(jnp.linalg.norm(jax.grad(loss)(student_logits)))


temperatures = np.geomspace(0.5, 16, 11)
figure, ax = plt.subplots(figsize=(5.4, 3.4))
for squared, label in ((True, "with the factor"), (False, "without")):
    norms = [
        gradient_norm(KL(temperature=float(t), temperature_squared=squared))
        for t in temperatures
    ]
    ax.plot(temperatures, norms, marker="o", ms=3, label=label)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="temperature",
    ylabel="gradient norm of KL",
)
weaker = gradient_norm(KL(temperature_squared=False)) / norms[-1]
ax.set_title(
    f"Without temperature² the gradient fades: {weaker:.0f} times from 1 to 16"
)
ax.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
ax.minorticks_off()
ax.legend()
plt.show()


# %%
def show_softened(temperature=2.0):
    figure, ax = plt.subplots(figsize=(5.4, 2.8))
    p, q = (
        jax.nn.softmax(logits[0] / temperature)
        for logits in (student_logits, teacher_logits)
    )
    classes = np.arange(10)
    ax.bar(classes - 0.2, p, 0.4, label="student")
    ax.bar(classes + 0.2, q, 0.4, label="teacher")
    entropy = float(-jnp.sum(q * jnp.log(q)))
    ax.set(
        xlabel="class",
        ylabel="probability",
        ylim=(0, 1),
        xticks=classes,
        title=f"Temperature {temperature:.2g}: teacher's entropy {entropy:.2f} "
        f"of at most {np.log(10):.2f} nats",
    )
    ax.legend()
    plt.show()


if interact:
    slider = FloatLogSlider(value=2.0, base=2, min=-2, max=4)
    interact(show_softened, temperature=slider)
else:
    show_softened()

# %% [markdown]
# ## Epsilon
#
# SinKD transports all predictions of a batch onto all of the teacher's. Its epsilon says
# how blurred the plan may be: large, and everything goes everywhere; small, and 20
# iterations no longer reach the marginals.

# %%
epsilons = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
values, norms, errors = [], [], []
for epsilon in epsilons:
    divergence = SinKD(epsilon=epsilon)
    values.append(float(divergence(student_logits, teacher_logits).mean()))
    norms.append(gradient_norm(divergence))
    plan, _ = divergence.plan(student_logits, teacher_logits)
    errors.append(50 * float(jnp.abs(plan.sum(axis=1) - 1 / 32).sum()))
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.0))
for ax, series, label, title in zip(
    axes,
    (values, norms, errors),
    ("SinKD", "gradient norm", "misplaced mass (%)"),
    ("More blur costs more …", "… and pulls less,", "but less does not converge"),
    strict=True,
):
    ax.plot(epsilons, series, marker="o", ms=3)
    ax.axvline(0.1, color=MUTED, lw=0.8, ls=":")
    ax.set(
        xscale="log", xlabel="epsilon (dotted: the paper's)", ylabel=label, title=title
    )
axes[2].set(yscale="log")
plt.show()


# %%
def show_plan(epsilon=0.1):
    plan, _ = SinKD(epsilon=epsilon).plan(student_logits, teacher_logits)
    figure, ax = plt.subplots(figsize=(4.4, 3.6))
    image = ax.imshow(32 * plan, cmap="magma_r", vmin=0)
    largest = float(32 * plan.max(axis=1).mean())
    ax.set(
        xlabel="teacher's example",
        ylabel="student's example",
        title=f"ε = {epsilon:.2g}: the best match gets {100 * largest:.0f} % on average",
    )
    ax.spines[:].set_visible(False)
    plt.colorbar(image, ax=ax, label="share of the student's example")
    plt.show()


if interact:
    interact(show_plan, epsilon=FloatLogSlider(value=0.1, min=-2, max=0))
else:
    show_plan()

# %% [markdown]
# ## What others mean by the same name
#
# On one pair of logits, see `docs/conventions.md` for the whole page.

# %%
for family in conventions_page.FAMILIES:
    if "Jensen" in family.title:
        display(Markdown(f"**{family.title}.** {family.note}"))
        display(Markdown(page.codes_table(family.conventions)))
