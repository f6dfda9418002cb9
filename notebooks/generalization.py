# %% [markdown]
# # Where training and test come apart, layer by layer
#
# A network generalizes as far as training and test examples look alike to it. Two bounds
# say so for every layer: one by divergence, which only falls with depth, and one by
# transport, which is least at some layer, the generalization funnel (he2024information).
# Here they are formulas, then noise that tightens them, then a trained network. Runs on a
# CPU in a minute.

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
import optax

from kd.analysis import contraction
from kd.analysis.gibbs import gibbs
from kd.analysis.linear_gaussian import LinearGaussian
from kd.analysis.profile import Examples, Sampling, profile
from kd.data.arrays import Arrays, Normalization, Normalized
from kd.models.mlp import MLP

TRAIN, TEST, THIRD, MUTED = "#0072b2", "#d55e00", "#009e73", "#6a737d"
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
        "axes.prop_cycle": plt.cycler(color=[TRAIN, TEST, THIRD, "#cc79a7"]),
    }
)

# %% [markdown]
# ## Where everything is a formula
#
# Two Gaussians, a linear network that narrows, and a last layer learned from the average of
# the training examples. Given that average a training example lies a little closer to it
# than a new one does, in every layer; how much is a formula (`LinearGaussian`). The actual
# gap is simulated: 4,000 training sets, with a loss from 0 to 1.

# %%
random = np.random.default_rng(0)
WIDTHS = (24, 16, 8, 4)


def network(num_examples):
    """Random layers of these widths, each of norm 1, on 32 inputs."""
    random = np.random.default_rng(1)
    weights, inputs = [], 32
    for width in WIDTHS:
        matrix = random.normal(size=(width, inputs))
        weights.append(matrix / np.linalg.norm(matrix, 2))
        inputs = width
    mean = np.full(32, 0.3)
    return LinearGaussian(
        mean=mean, deviation=1.0, num_examples=num_examples, weights=tuple(weights)
    )


def simulated_gap(setting, num_sets=4000):
    """Test less training loss of a head along the average of the last layer."""
    n, last = setting.num_examples, setting.maps[-1]
    seen, new = (setting.mean + random.normal(size=(num_sets, n, 32)) for _ in range(2))
    heads = seen.mean(axis=1) @ last.T
    heads /= np.linalg.norm(heads, axis=1, keepdims=True)
    ours, theirs = (
        np.clip((1 - np.einsum("sk,snk->sn", heads, x @ last.T)) / 2, 0, 1)
        for x in (seen, new)
    )
    gaps = (theirs - ours).mean(axis=1)
    return gaps.mean(), gaps.std() / np.sqrt(num_sets)


setting = network(20)
gap, error = simulated_gap(setting)
layers = np.arange(len(WIDTHS) + 1)
by_kl, by_transport = setting.kl_bounds(0.5), setting.wasserstein_bounds(0.5)
figure, ax = plt.subplots(figsize=(5.8, 3.4))
ax.plot(layers, by_kl, "o-", label="bound by divergence")
ax.plot(layers, by_transport, "s-", label="bound by transport")
ax.axhspan(gap - 2 * error, gap + 2 * error, color=THIRD, alpha=0.3, lw=0)
ax.axhline(gap, color=THIRD, label="actual gap, simulated")
ax.plot(
    setting.funnel, by_transport[setting.funnel], "o", ms=12, mfc="none", color=TEST
)
ax.set(
    yscale="log",
    xticks=layers,
    xlabel="layer (0: the input)",
    ylabel="generalization gap",
    title=f"Both bounds hold; {by_kl[0] / by_kl[-1]:.1f} times tighter at the last hidden "
    "layer",
)
ax.legend(loc="lower left")
plt.show()
assert gap < min(by_kl.min(), by_transport.min())

# %% [markdown]
# A layer that multiplies what differs before it is no funnel. Here the third layer's norm
# is changed: the bound by divergence does not notice, the bound by transport does.

# %%
figure, ax = plt.subplots(figsize=(5.8, 3.4))
for gain, color in ((1.0, TRAIN), (4.0, TEST), (16.0, THIRD)):
    scaled = list(setting.weights)
    scaled[2] = gain * scaled[2]
    louder = LinearGaussian(
        mean=setting.mean, deviation=1.0, num_examples=20, weights=tuple(scaled)
    )
    bounds = louder.wasserstein_bounds(0.5)
    ax.plot(layers, bounds, "o-", color=color, label=f"norm {gain:.0f}")
    ax.plot(louder.funnel, bounds[louder.funnel], "o", ms=12, mfc="none", color=color)
ax.set(
    yscale="log",
    xticks=layers,
    xlabel="layer",
    ylabel="bound by transport",
    title="The funnel (ringed) is where distance and what follows are least together",
)
ax.legend(title="of layer 3")
plt.show()

# %% [markdown]
# ## Noise contracts
#
# A noisy layer lets only a part of any divergence through. Of dropout it is all but the
# chance that every unit is dropped, so width matters: at usual widths dropout contracts
# nothing that this bound could see.

# %%
widths = np.arange(1, 33)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4))
for rate in (0.1, 0.5, 0.9):
    etas = [contraction.dropout(rate, int(w)) for w in widths]
    left.plot(widths, etas, label=f"dropout {rate}")
left.plot(
    widths,
    [
        contraction.gaussian_noise(2.0, contraction.box_diameter(1.0, int(w)))
        for w in widths
    ],
    color=MUTED,
    label="noise of deviation 2 on tanh",
)
left.set(
    xlabel="width",
    ylabel="contraction coefficient",
    ylim=(0, 1.02),
    title="Narrow layers contract, wide ones do not",
)
left.legend()

depths = np.arange(9)
for width in (2, 4, 8):
    etas = [contraction.dropout(0.5, width)] * 8
    right.plot(
        depths, contraction.after_layers(1.0, etas), "o-", label=f"width {width}"
    )
right.set(
    xlabel="layers with dropout 0.5",
    ylabel="divergence left, at most",
    ylim=(0, 1.02),
    title="Deeper and narrower contracts more",
)
right.legend()
plt.show()

# %% [markdown]
# ## The Gibbs algorithm: 1 / n, not 1 / √n
#
# Four hypotheses, three kinds of examples, and every sample of n examples counted. The gap
# is the symmetrized information over beta, exactly.

# %%
losses = np.array([[0.0, 0.9, 0.4], [0.7, 0.1, 0.5], [1.0, 0.6, 0.0], [0.3, 0.3, 0.3]])
chances = np.array([0.5, 0.3, 0.2])
sizes = [2, 4, 8, 16, 32, 64, 128]
figure, ax = plt.subplots(figsize=(5.8, 3.4))
for beta in (1.0, 4.0, 16.0):
    found = [
        gibbs(losses, chances, num_examples=n, inverse_temperature=beta) for n in sizes
    ]
    (line,) = ax.plot(sizes, [f.gap for f in found], "o-", label=f"β = {beta:.0f}")
    ax.plot(sizes, [f.bound for f in found], ":", color=line.get_color())
slope = np.log2(found[-2].gap / found[-1].gap)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="training examples n",
    ylabel="gap (dotted: β / 2n)",
    title=f"Twice the examples, {2**slope:.2f} times less gap",
)
ax.set_xticks(sizes, [str(n) for n in sizes])
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ## A trained network
#
# Two classes of points around two centres, a fifth of the labels wrong, a network that can
# learn them by heart. Its profile compares training with test in every layer, labels
# included: the 1-Wasserstein distance, times how steep what follows is at the examples. It
# is a diagnostic, as one network and two samples give no bound. `make profile RUN=...` does
# the same for any run on images or a table.

# %%
NUM = 400


def points(seed, wrong=0.2):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, NUM).astype(np.int32)
    inputs = random.normal(size=(NUM, 10)) + 0.8 * (2 * labels[:, None] - 1)
    flipped = random.uniform(size=NUM) < wrong
    return np.float32(inputs), np.where(flipped, 1 - labels, labels)


def examples(inputs, labels):
    split = Normalized(Arrays(inputs, labels), Normalization(np.zeros(10), np.ones(10)))
    return Examples(split, np.arange(NUM), labels, np.eye(2)[labels])


mlp = MLP(widths=(64, 64, 8))
model = mlp.build(2)
inputs, labels = points(0)
test_inputs, test_labels = points(1)
optimizer = optax.adam(3e-3)


def cross_entropy(params, inputs, labels):
    logits = model.apply(params, {"inputs": inputs}, None).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def train(params, state):
    def step(carry, _):
        params, state = carry
        gradient = jax.grad(cross_entropy)(params, jnp.asarray(inputs), labels)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), length=100)[0]


def accuracy(params, inputs, labels):
    logits = model.apply(params, {"inputs": jnp.asarray(inputs)}, None).logits
    return float((logits.argmax(axis=1) == labels).mean())


params = model.init(jax.random.key(0), {"inputs": jnp.asarray(inputs)})
state = optimizer.init(params)
sampling = Sampling(num_examples=200, num_draws=3, num_points=50)
seen, new = examples(inputs, labels), examples(test_inputs, test_labels)
profiles = {}
for steps in (100, 200, 300, 400, 500, 600):
    params, state = train(params, state)
    if steps in (100, 600):
        gap = accuracy(params, inputs, labels) - accuracy(
            params, test_inputs, test_labels
        )
        profiles[steps] = gap, profile(mlp, params, 2, seen, new, sampling)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4))
for (steps, (_, found)), color in zip(profiles.items(), (TRAIN, TEST), strict=True):
    names = [layer.name for layer in found.layers]
    places = range(len(names))
    excess = [layer.distance / layer.noise for layer in found.layers]
    axes[0].plot(places, excess, "o-", color=color, label=f"after {steps} steps")
    axes[1].plot(places, [layer.score for layer in found.layers], "o-", color=color)
    funnel = names.index(found.funnel.name)
    axes[1].plot(
        funnel, found.funnel.score, "o", ms=12, mfc="none", color=color,
    )  # fmt: skip
axes[0].axhline(1, color=MUTED, lw=0.8, ls=":")
axes[0].set(
    ylabel="distance to test / within training",
    title=f"Learnt by heart: the accuracy gap went from {100 * profiles[100][0]:.0f} to "
    f"{100 * profiles[600][0]:.0f} points",
)
axes[0].legend()
axes[1].set(
    yscale="log",
    ylabel="distance × slope after it",
    title="The score of every layer; the funnel is ringed",
)
for ax in axes:
    ax.set_xticks([*places], names, rotation=20)
plt.show()
