"""What teachers say about the data, computed once and kept."""

import functools
import hashlib
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from kd.atomic import atomic_write
from kd.data.sample import Sample
from kd.data.task import Prepared
from kd.features import class_means, layers
from kd.networks.load import Loaded, longest
from kd.networks.predict import logits, predictor
from kd.train.mesh import replicate
from kd.types import Batch, Embedding, Outputs


class Answers(NamedTuple):
    """Teachers and what they say about the data."""

    teachers: tuple[Loaded, ...]
    dev: Float[np.ndarray, "num_dev v"] | None
    """Of all teachers as one; None where one has other outputs than the task."""
    train: tuple[Float[np.ndarray, "num_train v"], ...] | None
    """Of each; None where they are asked anew in every step, or not at all."""
    embeddings: Mapping[Embedding, Float[np.ndarray, "num_train e"]] = (
        types.MappingProxyType({})
    )
    """Of the only teacher, those of examples."""

    @property
    def source(self) -> str:
        """Where they come from, for the record."""
        return "; ".join(teacher.source for teacher in self.teachers)

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
        found = {}
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
    on_train: bool,
    embeddings: Sequence[Embedding] = (),
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> Answers:
    """Asks teachers about dev and, if `on_train`, about the training split.

    Args:
        teachers: whom to ask, one or several.
        combine: the outputs of several as those of one.
        data: what about.
        on_train: whether to compute the logits on the training split, or read them
            from `cache`.
        embeddings: vectors of the only teacher for the training split, likewise.
        mesh: of the devices to compute on.
        cache: folder of logits computed before.
        say: shows a line to the person who waits.
    """
    # Those of classes are made of those of examples.
    examples = dict.fromkeys(e._replace(of="example") for e in embeddings)
    vector_readers = {f"-layer{e.layer}-{e.read}": vector_of(e) for e in examples}
    dev, train, vectors = [], [], {}
    for teacher in teachers:
        predict = predictor(teacher.model, mesh=mesh)
        params = replicate(teacher.params, mesh)
        if not any(one.other_outputs for one in teachers):
            dev.append(predict(params, data.dev))
        readers = ({"": logits} if on_train else {}) | vector_readers
        vectors = _on_train(teacher, readers, data, mesh, cache, say)
        if on_train:
            train.append(vectors.pop(""))
    together = np.asarray(combine(dev)) if len(dev) > 1 else dev[0] if dev else None
    return Answers(
        tuple(teachers),
        together,
        tuple(train) if on_train else None,
        dict(zip(examples, vectors.values(), strict=True)),
    )


def vector_of(which: Embedding) -> Callable[[Outputs, Batch], Float[Array, "b e"]]:
    """What of a network's outputs for a batch, none of it masked, is an embedding."""

    def vector(outputs, batch):
        states = layers.layer("teacher", outputs.hidden, which.layer)
        batch = {**batch, "mask": jnp.ones(len(states), bool)}
        return layers.vectors(states, batch, cast(layers.Read, which.read))

    return vector


def _on_train(
    teacher: Loaded,
    readers: Mapping[str, Callable[[Outputs, Batch], Any]],
    data: Prepared,
    mesh: Mesh,
    cache: pathlib.Path,
    say: Callable[[str], Any],
) -> dict[str, Float[np.ndarray, "num_train d"]]:
    """What a teacher says of the training split, by the endings of the files' names.

    What the cache lacks is computed in one pass and put there.

    Args:
        teacher: whom to ask.
        readers: what of its outputs goes into the file of each ending.
        data: what about.
        mesh: of the devices to compute on.
        cache: folder of what was computed before.
        say: shows a line to the person who waits.
    """

    def read(endings, outputs, batch):
        return {ending: readers[ending](outputs, batch) for ending in endings}

    def shapes(params, batch):
        return read(readers, teacher.model.apply(params, batch, None), batch)

    key = _key(teacher, data)
    paths = {ending: cache / f"{key}{ending}.npy" for ending in readers}
    widths = jax.eval_shape(shapes, teacher.params, longest(data.train))
    found = {
        ending: _read(path, (len(data.train), widths[ending].shape[1]), say)
        for ending, path in paths.items()
    }
    missing = [ending for ending, values in found.items() if values is None]
    if missing:
        of = functools.partial(read, missing)
        ask = predictor(teacher.model, mesh=mesh, of=of)
        made = ask(replicate(teacher.params, mesh), data.train)
        for ending in missing:
            _write(paths[ending], made[ending])
            found[ending] = np.load(paths[ending], mmap_mode="r", allow_pickle=False)
    return cast(dict[str, np.ndarray], found)


def _key(teacher: Loaded, data: Prepared) -> str:
    # The weights and the inputs themselves, so that logits of another teacher or of
    # other data are never taken for these.
    digest = hashlib.sha256(teacher.fingerprint.encode())
    digest.update(data.train.content())
    return digest.hexdigest()[:16]


def _read(
    path: pathlib.Path, shape: tuple[int, int], say: Callable[[str], Any]
) -> Float[np.ndarray, "num_train v"] | None:
    if not path.exists():
        return None
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.shape == shape and values.dtype == np.float32:
            return values
    except (ValueError, OSError, EOFError, SyntaxError):
        pass
    say(f"{path} is damaged; computing the teacher's answers again")
    return None


def _write(path: pathlib.Path, values: Float[np.ndarray, "n d"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.save(file, values, allow_pickle=False)
