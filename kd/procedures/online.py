"""Online distillation: networks that learn together, each from what the others say."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kd.objective import Mix
from kd.procedures.procedure import Procedure, Setting, shapes_of
from kd.procedures.step import gradient_step
from kd.train.optimizer import AdamW
from kd.types import Architecture, Batch, Metrics, Outputs, Training, TrainState

if TYPE_CHECKING:
    from kd.experiment import Experiment

TaughtBy = Literal["others", "mean", "best", "min_logit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A network that learns beside the student; what is None is as the student's.

    Attributes:
        network: its sizes.
        objective: what it minimises.
        optimizer: how.
    """

    network: Architecture | None = None
    objective: Mix | None = None
    optimizer: AdamW | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Online(Procedure):
    """Trains the student and its peers at once, each by what the others say.

    Network k has an objective mix_k, an optimizer and outputs z_k. All see the same
    batch, and each sees the rest as constants, sg:

        others        L_k = 1/(K-1) sum_{l != k} mix_k(z_k, sg(z_l))
        an ensemble   L_k = mix_k(z_k, sg(z)),  z of all K networks, k among them:
            mean          log (1/K sum_l softmax(z_l)), the task's own mean
            best          of each example the z_l of least cross-entropy with the label
            min_logit     z_v = min_l (z_lv - z_ly), y the label

    One step minimises sum_k L_k, so every network follows the gradient of its own L_k
    only. Of a mix, a term on labels is the same for every l. What others see of a
    network is what it said in training, dropout included.

    The student is the network that is kept. The metrics have its terms as `loss/<term>`
    and those of a peer as `loss/<peer>/<term>`, and `loss`, the sum of all.

    Attributes:
        peers: those that learn beside the student: "peer", or "peer_1", "peer_2", ...
        taught_by: whose answers are a network's teacher in its mix.
        with_teachers: whether the experiment's frozen teachers count among the
            networks, several of them as one, as in `Offline`; if not, the student is
            compared with them only.

    Source: of "others" zhang2018mutual, with CE and KL of weight 1 at temperature 1;
    there the networks take turns within a step. Of the ensembles guo2020kdcl, with KL
    of weight 1 at temperature 2, known here from others' reports of it: "best" is
    KDCL-Naive, "min_logit" KDCL-MinLogit, and "mean" the baseline of both. Not here are
    KDCL-Linear and KDCL-General, whose weights of the networks are optimised in every
    step or on held-out data, and the other view of the batch that each network has
    there. BD-KD, amara2022bdkd, is "others" with `BalancedKL` for the student and `KL`
    for one larger peer.
    """

    peers: tuple[Peer, ...] = (Peer(),)
    taught_by: TaughtBy = "others"
    with_teachers: bool = False

    def __post_init__(self) -> None:
        if not self.peers:
            raise ValueError("there is no peer to learn with; Offline() needs none")

    @property
    def consults_teachers(self) -> bool:
        return self.with_teachers

    @property
    def _by_name(self) -> dict[str, Peer]:
        """Peers by their names, the student as one of them."""
        names = [f"peer_{i}" for i in range(1, len(self.peers) + 1)]
        if len(self.peers) == 1:
            names = ["peer"]
        return {self.exported: Peer()} | dict(zip(names, self.peers, strict=True))

    def learners(self, student: Architecture) -> dict[str, Architecture]:
        return {n: peer.network or student for n, peer in self._by_name.items()}

    def objectives(self, objective: Mix) -> dict[str, Mix]:
        return {n: peer.objective or objective for n, peer in self._by_name.items()}

    def problems(self, experiment: "Experiment") -> Iterator[str]:
        losses, data = experiment.losses, experiment.data
        for i, peer in enumerate(self.peers):
            if peer.network is not None:
                try:
                    data.check(peer.network, f"procedure.peers.{i}.network")
                except ValueError as error:
                    yield str(error)
        if not any(loss.needs_teacher for loss in losses):
            yield (
                "the networks learn nothing from each other: no objective has a term "
                "of student and teacher, such as KL"
            )
        readers = ", ".join(loss.name for loss in losses if loss.reads_hidden)
        if readers and self.taught_by != "others":
            yield (
                f"{readers} reads hidden states, which an ensemble has not; taught_by "
                'must be "others"'
            )
        elif readers and self.with_teachers and len(experiment.teachers) > 1:
            yield (
                f"{readers} reads hidden states, and {len(experiment.teachers)} frozen "
                "teachers answer as one, without any; there must be one at most"
            )
        if self.with_teachers and data.unanswered:
            yield (
                f"data.unanswered={data.unanswered} hides a teacher's answers, and "
                "online every network speaks of every example; with_teachers must be "
                "false"
            )
        if any(e.of == "class" for e in experiment.embeddings):
            yield (
                "means of classes over the training set are a frozen teacher's, and "
                "online every network speaks of its own; class_means must be batch"
            )
        if experiment.teacher_weights:
            yield (
                "teacher_weights weighs the answers of frozen teachers, and online "
                "the networks' own count alike; it must be empty"
            )
        mixed = experiment.view is not None and experiment.view.mixes
        if self.taught_by in ("best", "min_logit"):
            if mixed:
                yield (
                    f"taught_by={self.taught_by} reads one label of every example, and "
                    'the view mixes two; "others" and "mean" do not'
                )
            if not data.target.has_classes:
                yield (
                    f"taught_by={self.taught_by} looks at the class of an example, and "
                    f'{data.name} asks for a number; "others" and "mean" do not'
                )
            if data.unlabelled:
                yield (
                    f"taught_by={self.taught_by} reads the label of every example, and "
                    f'data.unlabelled={data.unlabelled} hides some; "others" and '
                    '"mean" do not'
                )
        if experiment.term_gradients == "balanced":
            yield (
                "term_gradients=balanced is about the terms of one network, and online "
                'there are several; "watched" shows them'
            )

    def build(self, setting: Setting) -> Training:
        mixes = self.objectives(setting.objective)
        setting = setting._replace(
            optimizer=self._optimizer(setting),
            losses=tuple(loss for mix in mixes.values() for loss in mix.losses),
        )

        def init(key, learners, teacher_params, batch):
            key, objective_key = jax.random.split(key)
            outputs = {
                name: shapes_of(model, learners[name], batch)
                for name, model in setting.learners.items()
            }

            def lessons(outputs):
                frozen = self._frozen(setting, teacher_params, batch)
                return self._lessons(mixes, setting, outputs, frozen, batch)

            objective = {
                name: {
                    source: mixes[name].init(
                        _of_place(objective_key, i), outputs[name], answers
                    )
                    for source, answers in sources.items()
                }
                for i, (name, sources) in enumerate(
                    jax.eval_shape(lessons, outputs).items()
                )
            }
            params = {**learners, "objective": objective}
            return TrainState(
                step=jnp.int32(0),
                params=params,
                opt_state=setting.optimizer.init(params),
                key=key,
            )

        def terms(params, teacher_params, batch, key, step):
            frozen = self._frozen(setting, teacher_params, batch)
            outputs = {
                name: model.apply(params[name], batch, _of_place(key, i))
                for i, (name, model) in enumerate(setting.learners.items())
            }
            lessons = self._lessons(mixes, setting, outputs, frozen, batch)
            losses, metrics = [], {}
            for name, mix in mixes.items():
                found = [
                    mix.weighted(
                        params["objective"][name][source], outputs[name], answers,
                        batch, step, apart=setting.term_gradients != "summed",
                    )
                    for source, answers in lessons[name].items()
                ]  # fmt: skip
                values, told = jax.tree.map(lambda *x: sum(x) / len(x), *found)
                losses += values
                metrics |= self._named(name, told)
            return losses, {"loss": sum(losses, jnp.float32(0.0))} | metrics

        names = [
            term if name == self.exported else f"{name}/{term}"
            for name, mix in mixes.items()
            for term in mix.names
        ]
        step = gradient_step(
            terms,
            setting,
            names=names,
            weights=lambda step: [w for m in mixes.values() for w in m.weights(step)],
        )
        return Training(init, step)

    def _frozen(
        self, setting: Setting, teacher_params: Any, batch: Batch
    ) -> Outputs | None:
        """What the frozen teachers say, as one; None where they take no part."""
        return setting.consult(teacher_params, batch) if self.with_teachers else None

    def _lessons(
        self,
        mixes: Mapping[str, Mix],
        setting: Setting,
        outputs: Mapping[str, Outputs],
        frozen: Outputs | None,
        batch: Batch,
    ) -> dict[str, dict[str, Outputs | None]]:
        """What each network learns from, by its name and by whose answers these are."""
        everyone = dict(outputs) | ({"teacher": frozen} if frozen is not None else {})
        everyone = jax.lax.stop_gradient(everyone)
        if self.taught_by != "others":
            logits = [answers.logits for answers in everyone.values()]
            everyone = {"ensemble": Outputs(self._ensemble(logits, setting, batch))}

        def lesson(name: str) -> dict[str, Outputs | None]:
            if not mixes[name].needs_teacher:
                return {"labels": None}
            return {k: v for k, v in everyone.items() if k != name}

        return {name: lesson(name) for name in mixes}

    def _ensemble(
        self, logits: list[Float[Array, "b v"]], setting: Setting, batch: Batch
    ) -> Float[Array, "b v"]:
        if self.taught_by == "mean":
            assert setting.combine is not None
            return setting.combine(logits)
        everyone = jnp.stack(logits)
        labels = jnp.where(batch["mask"], batch["labels"], 0)
        if self.taught_by == "min_logit":
            of_label = jnp.take_along_axis(everyone, labels[None, :, None], axis=2)
            return jnp.min(everyone - of_label, axis=0)
        errors = optax.softmax_cross_entropy_with_integer_labels(
            everyone, jnp.broadcast_to(labels, everyone.shape[:2])
        )
        best = jnp.argmin(errors, axis=0)
        return jnp.take_along_axis(everyone, best[None, :, None], axis=0)[0]

    def _optimizer(self, setting: Setting) -> optax.GradientTransformation:
        """One for each network and what its objective learns.

        Nothing is shared, not even the norm that gradients are clipped by.
        """
        return optax.partition(
            {
                name: peer.optimizer.build(setting.num_steps)
                if peer.optimizer
                else setting.optimizer
                for name, peer in self._by_name.items()
            },
            _owners,
        )

    def _named(self, name: str, metrics: Metrics) -> Metrics:
        """The metrics of a network's own mix as the step reports them."""
        own = {k: v for k, v in metrics.items() if k != "loss"}
        if name == self.exported:
            return own
        return {
            f"loss/{name}/{k[5:]}" if k.startswith("loss/") else f"{name}/{k}": v
            for k, v in own.items()
        }


def _of_place(key: Any, place: int) -> Any:
    # The student's is the one that it has offline.
    return jax.random.fold_in(key, place) if place else key


def _owners(params: Any) -> Any:
    """Of every parameter the name of its network, or of the one whose mix it is of."""

    def owned(tree, name):
        return jax.tree.map(lambda _: name, tree)

    objective = params["objective"]
    learners = {n: owned(tree, n) for n, tree in params.items() if n != "objective"}
    return learners | {"objective": {n: owned(t, n) for n, t in objective.items()}}
