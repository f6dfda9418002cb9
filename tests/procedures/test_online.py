"""Networks that learn from each other, on networks small enough to see through."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from points import experiment_on, whole_and_resumed, write_table
from procedures.linear import linear, make_batch, with_hidden_labels

from kd import config, run
from kd.divergences import KL, BalancedKL, Jeffreys, ReverseKL, SinKD
from kd.errors import UserError
from kd.evaluate.classes import Classes
from kd.evaluate.number import Number
from kd.experiment import Network
from kd.features import NormAndDirection, RKDDistance
from kd.models.mlp import MLP
from kd.objective import CrossEntropy, Loss, SquaredError
from kd.procedures.offline import Offline
from kd.procedures.online import Online, Peer
from kd.procedures.procedure import Setting
from kd.train import metrics_log
from kd.train.mesh import data_mesh, replicate, shard_batch
from kd.train.optimizer import AdamW
from kd.views.view import View

ENSEMBLES = ("mean", "best", "min_logit")
every_lesson = pytest.mark.parametrize("taught_by", ["others", *ENSEMBLES])
DML = 1.0 * CrossEntropy() + 1.0 * KL()


def combine(logits):
    return Classes(("a", "b", "c")).ensemble(logits)


def first_weights(number, seed=1):
    batch = make_batch()
    return linear().init(jax.random.fold_in(jax.random.key(seed), number), batch)


class Started:
    """Networks at their first step, with what moves them."""

    def __init__(
        self, procedure, objective, *, optimizer=None, teachers=0, rate=0.0, **options
    ):
        self.names = [*procedure.objectives(objective)]
        models = {name: linear() for name in self.names}
        models["student"] = linear(rate)
        self.training = procedure.build(
            Setting(
                models,
                (linear(),) * teachers,
                objective,
                optimizer or optax.sgd(1.0),
                combine=combine,
                **options,
            )
        )
        self.batch = make_batch()
        self.teacher_params = tuple(first_weights(100 + i) for i in range(teachers))
        self.first = {name: first_weights(i) for i, name in enumerate(self.names)}
        self.state = self.training.init(
            jax.random.key(2), jax.tree.map(jnp.copy, self.first), self.teacher_params,
            self.batch,
        )  # fmt: skip

    def step(self, times=1):
        """Weights of every network after some steps, and the last metrics."""
        metrics = {}
        for _ in range(times):
            self.state, metrics = self.training.step(
                self.state, self.teacher_params, self.batch
            )
        params = jax.device_get(self.state.params)
        return {name: params[name]["w"] for name in self.names}, metrics


@pytest.mark.slow
@pytest.mark.parametrize("num_peers", [1, 2, 3])
def test_every_network_goes_down_its_own_loss(num_peers):
    mixes = [DML, 0.3 * CrossEntropy() + 0.5 * ReverseKL(), 1.0 * KL(2.0), DML]
    mixes = mixes[: num_peers + 1]
    online = Online(peers=tuple(Peer(objective=mix) for mix in mixes[1:]))
    networks = Started(online, mixes[0])
    inputs, labels = (networks.batch[n][:10] for n in ("inputs", "labels"))
    weights = [networks.first[name]["w"] for name in networks.names]

    def loss(own, k):
        values = [
            sum(
                term.weight * term.loss(inputs @ own, labels).mean()
                if isinstance(term.loss, CrossEntropy)
                else term.weight * term.loss(inputs @ own, inputs @ other).mean()
                for term in mixes[k].terms
            )
            for i, other in enumerate(weights)
            if i != k
        ]
        return sum(values) / len(values)

    found, metrics = networks.step()
    total = 0.0
    for k, name in enumerate(networks.names):
        value, gradient = jax.value_and_grad(loss)(weights[k], k)
        total += value
        np.testing.assert_allclose(
            weights[k] - found[name], gradient, rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
    peers = networks.names[1:]
    numbered = [f"peer_{i + 1}" for i in range(num_peers)]
    assert peers == (["peer"] if num_peers == 1 else numbered)
    expected = {f"loss/{name}" for name in mixes[0].names} | {"loss", "grad_norm"}
    for peer, mix in zip(peers, mixes[1:], strict=True):
        expected |= {f"loss/{peer}/{name}" for name in mix.names}
    assert set(metrics) == expected


def definition(taught_by, logits, labels):
    """The ensemble's probabilities, in float64."""
    logits = [np.asarray(z, np.float64) for z in logits]

    def softmax(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    if taught_by == "mean":
        return np.mean([softmax(z) for z in logits], axis=0)
    if taught_by == "min_logit":
        rows = np.arange(len(labels))
        return softmax(np.min([z - z[rows, labels][:, None] for z in logits], axis=0))
    chosen = []
    for i, y in enumerate(labels):
        best = max(logits, key=lambda z: softmax(z[i : i + 1])[0, y])
        chosen.append(softmax(best[i : i + 1])[0])
    return np.array(chosen)


@pytest.mark.parametrize("taught_by", ENSEMBLES)
def test_an_ensemble_teaches_every_network(taught_by):
    online = Online(peers=(Peer(), Peer()), taught_by=taught_by)
    networks = Started(online, 1.0 * KL())
    inputs, labels = (np.asarray(networks.batch[n][:10]) for n in ("inputs", "labels"))
    logits = [inputs @ networks.first[name]["w"] for name in networks.names]
    q = definition(taught_by, logits, labels)
    found, metrics = networks.step()
    for name, z in zip(networks.names, logits, strict=True):
        p = definition("mean", [z], labels)
        term = "loss/kl" if name == "student" else f"loss/{name}/kl"
        expected = np.sum(q * (np.log(q) - np.log(p)), axis=1).mean()
        np.testing.assert_allclose(metrics[term], expected, rtol=1e-4)
        gradient = inputs.T @ (p - q) / 10
        np.testing.assert_allclose(
            networks.first[name]["w"] - found[name], gradient, rtol=1e-3, atol=1e-5
        )


@every_lesson
@pytest.mark.parametrize("learner", [0, 1, 2])
def test_no_loss_pulls_at_another_network(taught_by, learner):
    nothing = 0.0 * CrossEntropy()
    mixes = [DML if i == learner else nothing for i in range(3)]
    online = Online(
        peers=tuple(Peer(objective=m) for m in mixes[1:]),
        taught_by=taught_by,
        with_teachers=True,
    )
    networks = Started(online, mixes[0], teachers=1)
    found, _ = networks.step(3)
    for i, name in enumerate(networks.names):
        moved = np.any(found[name] != networks.first[name]["w"])
        assert moved == (i == learner), name


@dataclasses.dataclass(frozen=True)
class Leaky(KL):
    """A divergence that would let a gradient through to its teacher."""

    def per_example_with_metrics(self, params, student, teacher, batch):
        gaps = student.logits - teacher.logits
        return jnp.where(batch["mask"], jnp.square(gaps).sum(axis=1), 0), {}


def test_what_others_say_is_constant_whatever_the_loss_does():
    online = Online(peers=(Peer(objective=0.0 * CrossEntropy()),))
    networks = Started(online, 1.0 * Leaky())
    found, _ = networks.step()
    np.testing.assert_array_equal(found["peer"], networks.first["peer"]["w"])
    assert np.any(found["student"] != networks.first["student"]["w"])


@pytest.mark.parametrize("objective", [DML, DML + 0.8 * SinKD()], ids=["kl", "sinkd"])
@pytest.mark.parametrize("num_microbatches", [1, 3])
def test_a_peer_that_stays_is_an_offline_teacher_bit_for_bit(
    objective, num_microbatches
):
    options = {"num_microbatches": num_microbatches, "rate": 0.3}
    adam = AdamW(learning_rate=1e-2).build(20)
    online = Started(
        Online(peers=(Peer(objective=0.0 * CrossEntropy()),)), objective,
        optimizer=adam, **options,
    )  # fmt: skip
    offline = Started(Offline(), objective, optimizer=adam, teachers=1, **options)
    offline.teacher_params = (online.first["peer"],)
    for _ in range(5):
        ours, metrics = online.step()
        theirs, expected = offline.step()
        np.testing.assert_array_equal(ours["student"], theirs["student"])
        for name in expected:
            if name.startswith("loss/"):
                assert metrics[name] == expected[name], name
    np.testing.assert_array_equal(ours["peer"], online.first["peer"]["w"])


@every_lesson
def test_a_frozen_teacher_is_a_peer_that_stays(taught_by):
    stays = Peer(objective=0.0 * CrossEntropy())
    with_peer = Started(Online(peers=(Peer(), stays), taught_by=taught_by), DML)
    online = Online(taught_by=taught_by, with_teachers=True)
    with_teacher = Started(online, DML, teachers=1)
    with_teacher.teacher_params = (with_peer.first["peer_2"],)
    ours, _ = with_peer.step(4)
    theirs, _ = with_teacher.step(4)
    for name, other in (("student", "student"), ("peer_1", "peer")):
        np.testing.assert_allclose(ours[name], theirs[other], rtol=1e-5, atol=1e-6)


def test_cached_answers_of_a_frozen_teacher_are_those_of_the_live_one():
    live, cached = (
        Started(Online(with_teachers=True), DML, teachers=2) for _ in range(2)
    )
    for i, params in enumerate(cached.teacher_params):
        name = f"teacher_logits_{i}" if i else "teacher_logits"
        cached.batch = cached.batch | {name: cached.batch["inputs"] @ params["w"]}
    cached.teacher_params = (None, None)
    ours, theirs = live.step(2)[0], cached.step(2)[0]
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@every_lesson
def test_one_and_four_devices_give_the_same(taught_by):
    found = []
    for number in (1, 4):
        mesh = data_mesh(jax.devices()[:number])
        online = Online(peers=(Peer(), Peer()), taught_by=taught_by, with_teachers=True)
        networks = Started(online, DML + 0.8 * SinKD(), teachers=1, mesh=mesh)
        networks.state = replicate(networks.state, mesh)
        networks.batch = shard_batch(networks.batch, mesh)
        losses = [float(networks.step()[1]["loss"]) for _ in range(4)]
        found.append((losses, networks.step()[0]))
    (ours, our_weights), (theirs, their_weights) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for name, weights in our_weights.items():
        np.testing.assert_allclose(weights, their_weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sharper", ["forward", "reverse"])
def test_balanced_divergences_of_equal_weight_are_jeffreys(sharper):
    peers = (Peer(objective=CrossEntropy() + KL(2.0)),)
    balanced = BalancedKL(2.0, emphasis=1.0, sharper=sharper)
    ours, metrics = Started(Online(peers=peers), CrossEntropy() + balanced).step(3)
    theirs, expected = Started(
        Online(peers=peers), CrossEntropy() + Jeffreys(2.0)
    ).step(3)
    np.testing.assert_allclose(
        metrics["loss/bdkd"], expected["loss/jeffreys"], rtol=1e-6
    )
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7)


@every_lesson
@pytest.mark.parametrize("num_microbatches", [2, 3, 12])
def test_microbatches_give_the_gradient_of_the_whole_batch(taught_by, num_microbatches):
    online = Online(peers=(Peer(), Peer()), taught_by=taught_by)
    whole, expected = Started(online, DML).step()
    parts, metrics = Started(online, DML, num_microbatches=num_microbatches).step()
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-6)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_every_network_has_its_optimizer():
    own = AdamW(learning_rate=3e-3, clip=0.1)
    alone, settings = (
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)),
        {"num_steps": 10},
    )
    # A hundred times the loss for the peer, clipped for the student alone.
    peer = Peer(objective=100.0 * CrossEntropy(), optimizer=own)
    networks = Started(
        Online(peers=(peer,)), 1.0 * CrossEntropy(), optimizer=alone, **settings
    )
    found, _ = networks.step()
    inputs, labels = (networks.batch[n][:10] for n in ("inputs", "labels"))

    def loss(w, weight):
        return weight * CrossEntropy()(inputs @ w, labels).mean()

    for name, weight, optimizer in (
        ("student", 1.0, alone), ("peer", 100.0, own.build(10)),
    ):  # fmt: skip
        w = networks.first[name]["w"]
        update, _ = optimizer.update(jax.grad(loss)(w, weight), optimizer.init(w), w)
        np.testing.assert_allclose(found[name], w + update, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Projected(Loss):
    """Squared distance of projected hidden states: a loss that learns itself."""

    name = "projected"

    @property
    def reads_hidden(self):
        return True

    def init(self, key, student, teacher):
        return {"w": jax.random.normal(key, (student.hidden[0].shape[1], 3))}

    def per_example(self, params, student, teacher, batch):
        gaps = student.hidden[0] @ params["w"] - teacher.logits
        return jnp.where(batch["mask"], jnp.square(gaps).sum(axis=1), 0)


def test_what_an_objective_learns_is_of_one_pair_of_networks():
    online = Online(peers=(Peer(), Peer(objective=1.0 * CrossEntropy())))
    networks = Started(
        online, 1.0 * CrossEntropy() + 1.0 * Projected(), optimizer=optax.sgd(0.05)
    )
    learnt = networks.state.params["objective"]
    pairs = {name: set(sources) for name, sources in learnt.items()}
    assert pairs == {
        "student": {"peer_1", "peer_2"}, "peer_1": {"student", "peer_2"},
        "peer_2": {"labels"},
    }  # fmt: skip
    first = jax.device_get(learnt)
    _, before = networks.step()
    _, after = networks.step(20)
    for name in ("loss/projected", "loss/peer_1/projected"):
        assert after[name] < 0.5 * before[name]
    learnt = networks.state.params["objective"]
    for name, source in (("student", "peer_1"), ("peer_1", "peer_2")):
        ours, theirs = (x[name][source]["projected"]["w"] for x in (learnt, first))
        assert np.all(np.any(np.asarray(ours) != theirs, axis=0))


def test_gradients_are_watched_network_by_network():
    networks = Started(Online(), DML, term_gradients="watched")
    plain, _ = Started(Online(), DML).step()
    found, metrics = networks.step()
    for name in plain:
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-5, atol=1e-6)
    alone = Started(
        Online(peers=(Peer(objective=1.0 * KL()),)), 0.0 * CrossEntropy()
    ).step()[0]["peer"]
    size = np.linalg.norm(alone - networks.first["peer"]["w"])
    np.testing.assert_allclose(metrics["gradient/peer/kl"], size, rtol=1e-4)
    assert metrics["cosine/kl/peer/kl"] == 0
    assert metrics["cosine/peer/ce/peer/kl"] != 0


@dataclasses.dataclass(frozen=True)
class Doubled(View):
    """Inputs times two for some, drawn anew in every step."""

    def __call__(self, key, batch, ask=None):
        chosen = jax.random.bernoulli(key, 0.5, (len(batch["inputs"]), 1))
        return {**batch, "inputs": jnp.where(chosen, 2, 1) * batch["inputs"]}


@every_lesson
def test_all_networks_see_the_same_view(taught_by):
    online = Online(taught_by=taught_by, with_teachers=True)
    viewed = Started(online, DML, teachers=1, view=Doubled())
    plain = Started(online, DML, teachers=1)
    # The key of a view in the first step, see `kd.procedures.step`.
    key = jax.random.fold_in(jax.random.fold_in(viewed.state.key, 0), 2**31 - 1)
    plain.batch = Doubled()(key, plain.batch)
    ours, theirs = viewed.step()[0], plain.step()[0]
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
        assert np.any(ours[name] != Started(online, DML, teachers=1).step()[0][name])


def test_hidden_labels_hide_from_every_network():
    hidden = [0, 3, 4, 6, 9]
    networks = Started(Online(), DML)
    keeps, networks.batch = with_hidden_labels(networks.batch, hidden)
    _, metrics = networks.step()
    inputs, labels = networks.batch["inputs"], networks.batch["labels"]
    for name, prefix in (("student", ""), ("peer", "peer/")):
        logits = inputs @ networks.first[name]["w"]
        expected = CrossEntropy()(logits[keeps], labels[keeps]).mean()
        np.testing.assert_allclose(metrics[f"loss/{prefix}ce"], expected, rtol=1e-5)


THREE = Classes(("low", "mid", "high"))


def on_points(directory, target=THREE, **fields):
    settings = {"objective": DML, "procedure": Online()} | fields
    return experiment_on(directory, target, settings.pop("objective"), **settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": 1.0 * CrossEntropy()}, "learn nothing from each other"),
        ({"term_gradients": "balanced"}, "about the terms of one network"),
        (
            {
                "objective": DML + RKDDistance(),
                "procedure": Online(taught_by="min_logit"),
            },
            'rkd_distance reads hidden states, which an ensemble has not; .* "others"',
        ),
        (
            {
                "procedure": Online(
                    peers=(Peer(objective=1.0 * RKDDistance()),), with_teachers=True
                ),
                "teachers": (Network(place="a"), Network(place="b")),
            },
            "rkd_distance reads hidden states, and 2 frozen teachers",
        ),
        (
            {"objective": DML + NormAndDirection()},
            "training set are a frozen teacher's, and .* class_means must be batch",
        ),
        (
            {"procedure": Online(with_teachers=True)},
            "the objective needs a teacher and there is none",
        ),
        (
            {
                "target": Number(0.0, 1.0), "objective": 1.0 * SquaredError(),
                "procedure": Online(taught_by="best"),
            },
            "taught_by=best looks at the class of an example, and points asks for a",
        ),
        (
            {
                "target": Number(0.0, 1.0), "objective": 1.0 * SquaredError(),
                "procedure": Online(peers=(Peer(objective=1.0 * KL()),)),
            },
            "points asks for a number, and kl compares predicted classes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_learn_together_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        on_points("", **fields)


def test_labels_that_choose_the_teacher_cannot_be_hidden():
    best = on_points("", procedure=Online(taught_by="best"))
    with pytest.raises(UserError, match="reads the label of every example, and data"):
        config.override(best, "data.unlabelled=0.5")
    taught = on_points(
        "", procedure=Online(with_teachers=True), teachers=(Network(place="a"),)
    )
    with pytest.raises(UserError, match="every network speaks of every example"):
        config.override(taught, "data.unanswered=0.5")
    with pytest.raises(ValueError, match="there is no peer to learn with"):
        Online(peers=())


def test_peers_are_changed_from_the_command_line():
    peer = Peer(network=MLP(widths=(6,)), objective=DML, optimizer=AdamW())
    experiment = config.override(
        on_points("", procedure=Online(peers=(peer, peer))),
        "procedure.taught_by=mean",
        "procedure.peers.1.objective.kl.temperature=4",
        "procedure.peers.1.network.widths=5,4",
        "procedure.peers.0.optimizer.learning_rate=0.5",
    )
    online = experiment.procedure
    assert online.taught_by == "mean"
    first, second = online.peers
    assert second.objective == 1.0 * CrossEntropy() + 1.0 * KL(4.0)
    assert second.network == MLP(widths=(5, 4)) and first.network == peer.network
    assert first.optimizer == AdamW(learning_rate=0.5)
    tree = json.loads(json.dumps(config.to_json(experiment)))
    assert tree["procedure"]["peers"][1]["objective"]["kl"]["temperature"] == 4


def label(x, y):
    return "high" if y > x + 0.5 else "mid" if y > x - 0.5 else "low"


@pytest.mark.slow
def test_a_run_of_three_networks_and_a_frozen_teacher(place, tmp_path):
    write_table(tmp_path / "data", label)
    recipe = experiment_on(tmp_path / "data", THREE, 1.0 * CrossEntropy())
    experiment = dataclasses.replace(
        recipe,
        teachers=(Network(recipe=recipe),),
        objective=CrossEntropy() + BalancedKL(),
        procedure=Online(
            peers=(
                Peer(
                    network=MLP(widths=(16, 8)),
                    objective=DML,
                    optimizer=AdamW(learning_rate=2e-2),
                ),
                Peer(network=MLP(widths=(6,), dropout=0.2)),
            ),
            with_teachers=True,
        ),
    )
    summary, page = whole_and_resumed(experiment, place)
    others = summary["others"]
    assert others["peer_1"]["num_params"] > others["peer_2"]["num_params"]
    for scores in (summary["student"], *others.values()):
        assert scores["accuracy"] > 0.5
        assert 0 <= scores["ece"] <= 1
    for name, scores in others.items():
        assert f"{name}, ECE {100 * scores['ece']:.2f} %" in page
    rows = metrics_log.read(place.workspace.runs / "whole/0/metrics.jsonl")
    assert {"loss/bdkd", "loss/peer_1/kl", "loss/peer_2/bdkd"} <= rows[0].keys()
    # One device gives what four gave.
    one = dataclasses.replace(place.workspace, mesh=data_mesh(jax.devices()[:1]))
    assert place.workspace.mesh.size == 4
    run.run(experiment, "one", one)
    ours, theirs = (
        metrics_log.read(place.workspace.runs / name / "0/metrics.jsonl")
        for name in ("one", "whole")
    )
    for row, expected in zip(ours, theirs, strict=True):
        for name in ("loss", "loss/bdkd", "loss/peer_1/kl", "peer_2/nll"):
            if name in expected:
                np.testing.assert_allclose(row[name], expected[name], rtol=1e-4)


@pytest.mark.slow
def test_a_teacher_to_compare_with_is_not_asked(place, tmp_path):
    write_table(tmp_path / "data", label)
    recipe = experiment_on(tmp_path / "data", THREE, 1.0 * CrossEntropy())
    alone = dataclasses.replace(
        recipe, objective=DML + RKDDistance(), procedure=Online()
    )
    compared = dataclasses.replace(alone, teachers=(Network(recipe=recipe),))
    summaries = {
        name: run.run(experiment, name, place.workspace)
        for name, experiment in (("alone", alone), ("compared", compared))
    }
    assert not list(place.workspace.runs.glob("networks/answers/*.npy"))
    assert not any("runs in every step" in line for line in place.said)
    assert summaries["alone"]["teacher"] is None
    assert summaries["compared"]["teacher"]["accuracy"] > 0.5
    ours, theirs = (
        place.workspace.runs / name / "0/model/model.safetensors" for name in summaries
    )
    assert ours.read_bytes() == theirs.read_bytes()
