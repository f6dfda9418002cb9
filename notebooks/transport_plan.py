# %% [markdown]
# # What SinKD moves where
#
# SinKD compares all predictions of a batch with all of the teacher's, by the cheapest
# way to move the ones onto the others. Here is that plan. Runs on a CPU in a minute.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from kd.divergences import SinKD, SinkhornDivergence
from kd.transport import line, line_exact

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

# %% [markdown]
# ## The plan
#
# A batch of 32 examples of five classes. The student knows less than the teacher: its
# logits are the teacher's, weaker, and noise. Both sides are sorted by the class they
# predict, and within it by how sure they are.

# %%
random = np.random.default_rng(0)
classes = np.repeat(np.arange(5), [7, 7, 6, 6, 6])
sure = 3 * np.eye(5)[classes] + random.normal(0, 1, (32, 5))
weak = 0.5 * sure + random.normal(0, 0.7, (32, 5))


def by_prediction(logits):
    """Rows sorted by their first choice, then by its lead over the mean."""
    lead = logits.max(axis=1) - logits.mean(axis=1)
    order = np.lexsort((lead, logits.argmax(axis=1)))
    return jnp.asarray(logits[order], jnp.float32)


student, teacher = by_prediction(weak), by_prediction(sure)
plan, cost = SinKD().plan(student, teacher)


def heat_map(ax, values, title, label):
    image = ax.imshow(values, cmap="magma_r", vmin=0)
    ax.set(title=title, xlabel="teacher's predictions, sorted")
    ax.set_ylabel("student's predictions, sorted")
    ax.spines[:].set_visible(False)
    plt.colorbar(image, ax=ax, shrink=0.85, label=label)


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.9))
heat_map(axes[0], cost, "What a move costs: the L1 distance", "cost (0 to 2)")
heat_map(
    axes[1],
    32 * plan,
    "What is moved: mostly within a class",
    "share of an example",
)
plt.show()

# %% [markdown]
# ## Marginals
#
# Every example has to give, and to receive, 1/32. An iteration puts the rows right, then
# the columns, which puts the rows wrong again, by less each time.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 2.8), sharey=True)
for ax, num_iters in zip(axes, (1, 5, 20), strict=True):
    plan, _ = SinKD(num_iters=num_iters).plan(student, teacher)
    ax.bar(np.arange(32), 32 * plan.sum(axis=1), color=STUDENT)
    ax.axhline(1, color=MUTED, lw=0.8, ls=":")
    wrong = float(jnp.abs(plan.sum(axis=1) - 1 / 32).sum()) / 2
    times = "iteration" if num_iters == 1 else "iterations"
    ax.set(title=f"{num_iters} {times}: {100 * wrong:.1f} % misplaced")
    ax.set_xlabel("student's predictions, sorted")
axes[0].set_ylabel("mass moved (in 1/32)")
plt.show()

# %% [markdown]
# ## Epsilon
#
# How much blur is allowed, in units of the cost.

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 3.5), sharey=True)
for ax, epsilon in zip(axes, (0.01, 0.05, 0.1, 1.0), strict=True):
    plan, _ = SinKD(epsilon=epsilon, num_iters=500).plan(student, teacher)
    share = np.asarray(plan)
    effective = float(np.exp(-np.sum(share * np.log(np.maximum(32 * share, 1e-30)))))
    image = ax.imshow(32 * plan, cmap="magma_r", vmin=0, vmax=1)
    ax.spines[:].set_visible(False)
    ax.set(title=f"ε = {epsilon}: to {effective:.0f} of 32", xlabel="teacher's, sorted")
axes[0].set_ylabel("student's, sorted")
plt.colorbar(image, ax=axes, shrink=0.8, label="share of an example")
figure.suptitle(
    "The larger ε, the more predictions each one is spread over (on average)",
    x=0.02,
    ha="left",
    size=10,
)
plt.show()

# %% [markdown]
# ## Iterations

# %%
counts = [1, 2, 5, 10, 20, 50, 100, 200]
figure, ax = plt.subplots(figsize=(5.6, 3.4))
for epsilon in (0.02, 0.05, 0.1, 0.5):
    misplaced = []
    for num_iters in counts:
        plan, _ = SinKD(epsilon=epsilon, num_iters=num_iters).plan(student, teacher)
        misplaced.append(100 * float(jnp.abs(plan.sum(axis=1) - 1 / 32).sum()) / 2)
    ax.plot(
        counts, np.maximum(misplaced, 1e-9), marker="o", ms=3, label=f"ε = {epsilon}"
    )
ax.axvline(20, color=MUTED, lw=0.8, ls=":")
ax.set(
    xscale="log",
    yscale="log",
    ylim=(1e-3, 100),
    xlabel="iterations (dotted: the paper's 20)",
    ylabel="misplaced mass (%)",
    title="A sharper plan takes more iterations",
)
ax.set_xticks(counts, [str(count) for count in counts])
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ## Bias
#
# The blurred plan costs something even where student and teacher agree, and less of it
# where the student's predictions lie closer together. So with much blur SinKD alone is
# not least at the teacher, but where the student is less sure. `SinkhornDivergence` takes
# the blur of each side off again. Here with ε = 1.

# %%
sureness = np.linspace(0.0, 2.0, 41)


@jax.jit
def losses(scale):
    return (
        SinKD(epsilon=1.0)(scale * teacher, teacher).mean(),
        SinkhornDivergence(epsilon=1.0)(scale * teacher, teacher).mean(),
    )


curves = np.array([losses(scale) for scale in sureness]).T
figure, ax = plt.subplots(figsize=(5.6, 3.4))
for name, values, color in zip(
    ("SinKD", "SinkhornDivergence"), curves, (STUDENT, THIRD), strict=True
):
    ax.plot(sureness, values, color=color, label=name)
    least = int(np.argmin(values))
    ax.plot(sureness[least], values[least], "o", color=color)
ax.axvline(1, color=TEACHER, lw=0.8, ls=":")
ax.set(
    xlabel="student's logits, as a multiple of the teacher's",
    ylabel="loss",
    ylim=(0, None),
    title=f"Least with SinKD at {sureness[np.argmin(curves[0])]:.2f} of the teacher's logits,\n"
    f"debiased at {sureness[np.argmin(curves[1])]:.2f}",
)
ax.legend()
plt.show()

# %% [markdown]
# ## On a line
#
# Two classes make predictions points on a line, where the plan without any blur is known:
# in order, from left to right. There SinKD needs no matrices at all (`kd.transport.line`).

# %%
margin = np.concatenate([random.normal(-3, 1, 16), random.normal(3, 1, 16)])


def two_classes(margin):
    """Logits whose difference is the margin."""
    return jnp.stack([jnp.zeros(32), jnp.asarray(margin, jnp.float32)], axis=1)


student = two_classes(0.4 * margin + random.normal(0, 1, 32))
teacher = two_classes(margin)
p, q = (jax.nn.softmax(logits / 2)[:, 1] for logits in (student, teacher))
masses = jnp.full(32, 1 / 32)
exact = float(line_exact.exact_row_costs(p, q, masses, masses).sum())
epsilons = np.geomspace(0.005, 1, 10)
blurred, by_matrix = [], []
for epsilon in epsilons:
    plan = line.solve(p, q, masses, masses, epsilon=float(epsilon), num_iters=500)
    blurred.append(float(plan.costs.sum()))
    loss = SinKD(epsilon=float(epsilon), num_iters=500)
    by_matrix.append(float(loss(student, teacher).mean()))
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
left.plot(epsilons, blurred, label="on the line")
left.plot(epsilons, by_matrix, "o", ms=5, mfc="none", label="by matrices, the same")
left.axhline(exact, color=THIRD, ls="--", label="exact, by sorting")
left.set(
    xscale="log",
    xlabel="ε",
    ylabel="transport cost",
    title="With less blur the cost falls to the exact one",
)
left.legend()

order_p, order_q = np.sort(np.asarray(p)), np.sort(np.asarray(q))
for x, y in zip(order_p, order_q, strict=True):
    right.plot([x, y], [0, 1], color=MUTED, lw=0.7)
right.plot(order_p, np.zeros(32), "|", color=STUDENT, ms=14)
right.plot(order_q, np.ones(32), "|", color=TEACHER, ms=14)
right.set_yticks([0, 1], ["student", "teacher"])
right.set(
    xlabel="probability of the second class, temperature 2",
    title="The exact plan keeps the order",
    ylim=(-0.2, 1.2),
)
plt.show()
