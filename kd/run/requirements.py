"""How much memory a training step takes, from the program that a run compiles."""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from kd.experiment import Experiment
from kd.objective.told import Logits
from kd.report.quantities import count, size
from kd.run.assembly import Assembly
from kd.run.ingredients import Ingredients

PARAMETERS = "parameters of what learns"
OPTIMIZER = "optimizer state"
TEACHERS = "parameters of frozen teachers"
BATCH = "batch"
TEMPORARIES = "activations, gradients, temporaries"
RETURNED = "metrics, and what is not updated in place"
CARRIED = "the rest of the state"


class Size(NamedTuple):
    """Something that takes memory."""

    name: str
    num_bytes: int
    note: str = ""


class Requirements(NamedTuple):
    """What a run takes, in bytes."""

    device: tuple[Size, ...]
    """On each device, largest first; the sum is what a step takes at its peak."""
    within: tuple[Size, ...]
    """Of the temporaries, as shapes have them. Not all need be there at once."""
    host: tuple[Size, ...]
    """In the memory of the host, and mapped from its disk."""
    logits: tuple[Logits, ...]
    """What the step decided about logits that are large."""
    num_devices: int
    available: int
    """What a device has, or on CPUs the host; 0 if that is not known."""
    on_accelerator: bool

    @property
    def total(self) -> int:
        """On each device."""
        return sum(one.num_bytes for one in self.device)

    @property
    def largest(self) -> Size:
        """Of what is on a device."""
        return self.device[0]

    def of(self, name: str) -> int:
        """The bytes of what goes by a name on a device."""
        return sum(one.num_bytes for one in self.device if one.name == name)


def requirements(
    experiment: Experiment,
    assembly: Assembly,
    made_from: Ingredients,
    *,
    compiled: bool = True,
) -> Requirements:
    """Compiles the step of a run for its widest batch, and adds up what it takes.

    What is on a device is the state, the parameters of all frozen teachers, those that
    do not run in the step included, one batch, and what XLA sets aside while the step
    runs. Batches that wait for their step, evaluation on dev, and the copy of the state
    that a checkpoint is written from, are not in it.

    Args:
        experiment: of the run; one seed.
        assembly: of it.
        made_from: of it; of networks shapes are enough.
        compiled: whether the step is compiled; without, all but the temporaries is
            known, and these are what the largest of their parts take, at least.
    """
    answers, mesh = made_from.answers, assembly.mesh
    batch = assembly.widest_batch()
    everywhere = NamedSharding(mesh, PartitionSpec())
    teachers = _placed(assembly.teachers, everywhere)
    state = jax.eval_shape(
        lambda theirs, example: assembly.first_state(experiment, None, theirs, example),
        teachers,
        batch,
    )
    state = _placed(state, everywhere)
    decisions = assembly.decisions(state, teachers)
    analysis = _compiled(assembly, state, teachers, batch) if compiled else None
    frozen = [t.params for t in answers.teachers] if answers is not None else []
    part = {
        name: _part(x, mesh.size * experiment.num_microbatches)
        for name, x in batch.items()
    }
    whole = {name: _part(x, mesh.size) for name, x in batch.items()}
    within = [
        Size("gradients", _bytes(state.params)),
        *_logits(assembly, state.params, made_from, part, decisions),
    ]
    learning = [
        f"{name} {_number(tree)}"
        for name, tree in state.params.items()
        if jax.tree.leaves(tree)
    ]
    device = [
        Size(PARAMETERS, _bytes(state.params), ", ".join(learning)),
        Size(OPTIMIZER, _bytes(state.opt_state)),
        Size(CARRIED, _bytes((state.step, state.key, state.memory))),
        Size(TEACHERS, _bytes(frozen), _of_teachers(made_from)),
        *_of_kept(assembly, made_from),
        Size(BATCH, _bytes(whole), _of_batch(whole)),
    ]
    if analysis is None:
        least = max(one.num_bytes for one in within)
        device.append(Size(TEMPORARIES, least, "at least; not told by a compiler"))
    else:
        returned = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        device += [
            Size(TEMPORARIES, analysis.temp_size_in_bytes, "of the compiled step"),
            Size(RETURNED, max(returned, 0)),
        ]
    device_of_mesh = mesh.devices.flat[0]
    return Requirements(
        _sorted(device),
        _sorted(within),
        _sorted(_on_host(made_from)),
        tuple(decisions),
        mesh.size,
        _available(device_of_mesh),
        device_of_mesh.platform != "cpu",
    )


def notices(decisions: Iterable[Logits]) -> list[str]:
    """What a person should know of decisions about logits, a line each."""
    lines = []
    for one in decisions:
        many = f"{one.num_rows:,} predictions x {one.num_classes:,} classes"
        lines.append(
            f"{many}: logits are computed {one.at_once:,} rows at a time"
            if one.at_once
            else f"{one.whole_for} needs the logits of all rows: {many}, "
            f"{size(one.num_bytes)} for each network"
        )
    return [*dict.fromkeys(lines)]


def _compiled(assembly: Assembly, state: Any, teachers: Any, batch: Any) -> Any:
    """What XLA says of the memory of the step; None where it does not."""
    step: Any = assembly.training.step
    if not hasattr(step, "lower"):
        step = jax.jit(step, donate_argnums=0)
    lowered = step.lower(state, teachers, batch)
    try:
        return lowered.compile().memory_analysis()
    except NotImplementedError:
        return None


def _logits(
    assembly: Assembly,
    params: Mapping[str, Any],
    made_from: Ingredients,
    batch: Mapping[str, Any],
    decisions: list[Logits],
) -> list[Size]:
    """Logits of networks that run in the step, for a part of the batch."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    networks = [
        (name, learner.model, params[name], key)
        for name, learner in assembly.learners.items()
    ]
    answers = made_from.answers
    if answers is not None and answers.in_step:
        several = len(answers.teachers) > 1
        networks += [
            (f"teacher {i}" if several else "teacher", one.model, one.params, None)
            for i, one in enumerate(answers.teachers, start=1)
        ]
    found = []
    for name, model, own, its_key in networks:
        logits = jax.eval_shape(model.apply, own, batch, its_key).logits
        at_once = [
            one.at_once
            for one in decisions
            if one.at_once and one.num_classes == logits.shape[-1]
        ]
        num_bytes, note = _bytes(logits), ""
        if at_once:
            note = f"{at_once[0]:,} rows at a time; all would be {size(num_bytes)}"
            num_bytes = 4 * at_once[0] * logits.shape[-1]
        found.append(Size(f"logits of the {name}", num_bytes, note))
    return found


def _on_host(made_from: Ingredients) -> list[Size]:
    data, answers = made_from.data, made_from.answers
    found = [Size("data set", _held(data, set()), "texts or arrays, all splits")]
    if answers is None:
        return found
    cached = [*(answers.train or ()), *answers.embeddings.values()]
    cached += [array for one in answers.kept for array in one.arrays.values()]
    num_bytes = sum(one.nbytes for one in cached)
    if not num_bytes:
        return found
    # What is asked about a part lies among what is not known, see `Answers.train`.
    mapped = answers.num_asked == len(data.train)
    where = "memory-mapped from disk" if mapped else "in memory"
    return [*found, Size("cached answers", num_bytes, where)]


def _held(value: Any, seen: set[int]) -> int:
    """Bytes of the arrays and texts that a record holds, each counted once."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.memmap):
        return 0
    if isinstance(value, np.ndarray):
        base = value if value.base is None else value.base
        if base is not value and isinstance(base, np.ndarray):
            return _held(base, seen)
        return value.nbytes
    if isinstance(value, str | bytes):
        return value.__sizeof__()
    if isinstance(value, Mapping):
        return sum(_held(x, seen) for x in value.values())
    if isinstance(value, list | tuple):
        return value.__sizeof__() + sum(_held(x, seen) for x in value)
    if type(value).__module__.startswith("kd.data"):
        return sum(_held(x, seen) for x in vars(value).values())
    return 0


def _of_kept(assembly: Assembly, made_from: Ingredients) -> list[Size]:
    """What a step holds to read kept answers by, such as the teacher's head."""
    answers = made_from.answers
    if answers is None or not answers.kept:
        return []
    num_bytes = _bytes(assembly.teachers)
    return [Size("head of the kept answers", num_bytes)] if num_bytes else []


def _of_teachers(made_from: Ingredients) -> str:
    answers = made_from.answers
    if answers is None:
        return ""
    numbers = ", ".join(_number(teacher.params) for teacher in answers.teachers)
    return numbers if answers.in_step else f"{numbers}; not in the step"


def _of_batch(batch: Mapping[str, Any]) -> str:
    inputs = batch.get("inputs", batch.get("tokens", batch["mask"]))
    return " x ".join(map(str, inputs.shape))


def _number(tree: Any) -> str:
    return count(sum(math.prod(x.shape) for x in jax.tree.leaves(tree)))


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of arrays, where they lie."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _part(x: jax.ShapeDtypeStruct, num_parts: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0] // num_parts, *x.shape[1:]), x.dtype)


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(x.shape) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if hasattr(x, "dtype")
    )


def _sorted(sizes: Iterable[Size]) -> tuple[Size, ...]:
    kept = [one for one in sizes if one.num_bytes]
    return tuple(sorted(kept, key=lambda one: -one.num_bytes))


def _available(device: jax.Device) -> int:
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (device.memory_stats() or {}).get("bytes_limit", 0)
