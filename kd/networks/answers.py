"""What teachers say about the data, computed once and kept."""

import functools
import math
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped

from kd import hosts
from kd.data.sample import Sample
from kd.data.task import Prepared
from kd.errors import UserError
from kd.evaluate.target import Target
from kd.features import class_means, layers
from kd.networks.in_memory import in_place, on_train
from kd.networks.kept import Dense, Keep, Streamed
from kd.networks.kept.ask import Kept, kept
from kd.networks.load import Loaded, longest
from kd.networks.predict import as_one, keeper, logits, predictor
from kd.networks.write import with_texts
from kd.train.mesh import replicate
from kd.types import Batch, Embedding, Outputs

_DENSE = Dense()


class Answers(NamedTuple):
    """Teachers and what they say about the data."""

    teachers: tuple[Loaded, ...]
    dev: Shaped[np.ndarray, "num_dev ..."] | None
    """Of all teachers as one, what the target keeps; None where one has other outputs
    than the task."""
    final: Shaped[np.ndarray, "num_final ..."] | None
    """The same of what final networks are scored on, `Prepared.final`."""
    train: tuple[Float[np.ndarray, "num_train ..."], ...] | None
    """Of each, NaN of examples that it was not asked about; None where they are asked
    anew in every step, or not at all."""
    in_step: bool
    """Whether they are asked in every step: about everything, or a view of it."""
    num_asked: int = 0
    """Training examples that `train`, or `embeddings`, is about."""
    embeddings: Mapping[Embedding, Float[np.ndarray, "num_train e"]] = (
        types.MappingProxyType({})
    )
    """Of the only teacher, those of examples."""
    kept: tuple[Kept, ...] = ()
    """Of each, in the place of `train`, what is kept otherwise than dense."""

    @property
    def in_program(self) -> tuple[Loaded, ...]:
        """What a step consults: teachers that run, or what they said that is kept."""
        return self.teachers if self.in_step else tuple(k.teacher for k in self.kept)

    @property
    def source(self) -> str:
        """Where they come from, for the record."""
        return "; ".join(teacher.source for teacher in self.teachers)

    def num_queries(self, num_seen: int, per_example: int = 1) -> int:
        """How often a training example is put to a teacher in a whole run.

        Args:
            num_seen: examples of all its batches, as often as they come.
            per_example: how often a step puts each of its own to a teacher that runs
                in it, see `kd.views.questions`.
        """
        in_steps = num_seen * per_example if self.in_step else 0
        return len(self.teachers) * (self.num_asked + in_steps)

    def vectors(
        self, wanted: Sequence[Embedding], sample: Sample
    ) -> dict[str, Float[np.ndarray, "num_train e"]]:
        """The embeddings that batches hold of their examples, by name.

        Where the teachers are asked in every step, those of classes alone.

        Args:
            wanted: by the objective.
            sample: what is learnt from: means of classes are over its examples, by
                its labels. An example whose label is hidden has any class's.
        """
        found: dict[str, Any] = {}
        for one in wanted:
            own = self.embeddings.get(one._replace(of="example"))
            if own is not None and one.of == "class":
                used = sample.kept[sample.labelled[sample.kept]]
                labels = sample.labels[used]
                means = class_means(own[used], labels, int(labels.max()) + 1)
                found[one.name] = means[sample.labels]
            elif own is not None and self.train is not None:
                found[one.name] = own
        return found


def consult(
    teachers: Sequence[Loaded],
    combine: Callable[[list[Any]], Any],
    data: Prepared,
    *,
    target: Target,
    about: Int[np.ndarray, "q"] | None,
    in_step: bool,
    embeddings: Sequence[Embedding] = (),
    keep: Keep = _DENSE,
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Answers:
    """Asks teachers about dev, test and examples of the training split.

    Args:
        teachers: whom to ask, one or several.
        combine: the outputs of several as those of one.
        data: what about.
        target: says what is kept of their logits on dev and test.
        about: the examples of the training split to compute logits on, or read them of
            from `cache`; None for not at all.
        in_step: whether they will be asked in every step.
        embeddings: vectors of the only teacher for the training split, likewise.
        keep: of the logits on the training split.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    hosts.agree(
        "the teachers' weights",
        [teacher.fingerprint for teacher in teachers],
        "all hosts must find the same files there",
    )
    # Those of classes are made of those of examples.
    examples = dict.fromkeys(e._replace(of="example") for e in embeddings)
    vector_readers = {f"-layer{e.layer}-{e.read}": vector_of(e) for e in examples}
    every = np.arange(len(data.train))
    asked = about if about is not None else every if vector_readers else every[:0]
    comparable = not any(teacher.other_outputs for teacher in teachers)
    streamed = isinstance(keep, Streamed) and about is not None
    dense = about if not streamed else None
    if dense is not None:
        check_size(teachers, data, len(dense))
    dev, test, train, vectors = [], [], [], {}
    told: list[Kept] = []
    for i, teacher in enumerate(teachers):
        # One program for all splits: a network takes seconds to compile.
        of = functools.partial(_read_all, {"": logits} | vector_readers)
        predict = predictor(teacher.model, mesh=mesh, of=of)
        ask = functools.partial(predict, replicate(teacher.params, mesh))
        if comparable and target.keeps_logits:
            dev.append(ask(data.dev)[""])
            if data.test is not None:
                test.append(ask(data.test)[""])
        wanted = [*([] if dense is None else [""]), *vector_readers]
        if wanted:
            vectors = on_train(teacher, ask, of, wanted, data, asked, cache, say)
        if dense is not None:
            train.append(in_place(vectors.pop(""), dense, len(data.train)))
        if isinstance(keep, Streamed) and about is not None:
            told.append(
                kept(i, teacher, keep, data, about, mesh=mesh, cache=cache, say=say)
            )

    def together(outputs):
        return outputs[0] if len(outputs) == 1 else np.asarray(combine(outputs))

    on_dev = together(dev) if dev else None
    if comparable and not target.keeps_logits:
        on_dev, *test = _kept(teachers, combine, data, target, mesh)
    return Answers(
        tuple(teachers),
        on_dev,
        together(test) if test else on_dev,
        None if dense is None else tuple(train),
        in_step,
        len(asked),
        {
            one: in_place(values, asked, len(data.train))
            for one, values in zip(examples, vectors.values(), strict=True)
        },
        tuple(told),
    )


def _kept(
    teachers: Sequence[Loaded],
    combine: Callable[[list[Any]], Any],
    data: Prepared,
    target: Target,
    mesh: Mesh,
) -> list[np.ndarray]:
    """What a target keeps of the teachers as one: on dev, and on test if there is one.

    It is no function of what it keeps of each.
    """
    together = as_one([teacher.model for teacher in teachers], combine)
    predict = predictor(together, mesh=mesh, of=keeper(target))
    if target.writes:
        predict = with_texts(predict, together, target, mesh)
    params = replicate(tuple(teacher.params for teacher in teachers), mesh)
    splits = [data.dev, *([] if data.test is None else [data.test])]
    return [predict(params, split) for split in splits]


_LARGEST = 4 * 2**30
"""Bytes of a teacher's answers that are kept at most."""


def check_size(teachers: Sequence[Loaded], data: Prepared, num_asked: int) -> None:
    """Raises UserError where logits of the training split are too many to keep."""
    for teacher in teachers:
        batch = longest(data.train)
        logits = jax.eval_shape(teacher.model.apply, teacher.params, batch, None).logits
        shape = (num_asked, *logits.shape[1:])
        size = 4 * math.prod(shape)
        if len(shape) > 2 and size > _LARGEST:
            raise UserError(
                f"answers=cached would keep {shape[-1]:,} logits at each of "
                f"{math.prod(shape[:-1]):,} tokens, {size / 2**30:,.1f} GiB; set "
                "keep=64 for the largest of them and the sum of the others, "
                "keep=hidden, or answers=live"
            )


def vector_of(which: Embedding) -> Callable[[Outputs, Batch], Float[Array, "b e"]]:
    """What of a network's outputs for a batch, none of it masked, is an embedding."""

    def vector(outputs, batch):
        states = layers.layer("teacher", outputs.hidden, which.layer)
        batch = {**batch, "mask": jnp.ones(len(states), bool)}
        return layers.vectors(states, batch, cast(layers.Read, which.read))

    return vector


def _read_all(
    readers: Mapping[str, Callable[[Outputs, Batch], Any]],
    outputs: Outputs,
    batch: Batch,
) -> dict[str, Any]:
    return {ending: read(outputs, batch) for ending, read in readers.items()}
