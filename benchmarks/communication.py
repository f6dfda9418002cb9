"""What devices send each other for one SinKD loss, and for a whole training step.

Counted in the compiled program, loops multiplied out, for 2 to 64 simulated devices,
and compared with the formula of `kd.transport.sharding`; beyond, to 1,024 devices, the
formula alone. Nothing is timed, nothing is executed: the counts are those of any
platform that takes the same collectives. All problems are in the kernel domain. Of the
loss by itself nothing asks for the metrics of the plan; the step does.

    python -m benchmarks.communication
"""

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import measure
from kd.divergences import KL, SinKD
from kd.errors import UserError
from kd.models.bert import Bert
from kd.objective import CrossEntropy
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train.mesh import data_mesh
from kd.train.optimizer import AdamW
from kd.transport import sharding

DEVICES = (2, 4, 8, 16, 32, 64)
PROBLEMS = ((1024, 2), (1024, 10), (1024, 1000), (256, 32_000))
"""Batch sizes and numbers of classes."""
_FLOAT = 4  # bytes
STEPS = ((32, 2), (32, 10))
"""Rows of a device and classes, in whole steps."""
WIDTH = 64
"""Tokens of an example there."""
COMPILED = Bert(num_layers=1, width=64, num_heads=1, mlp_width=256, vocab_size=8192)
PAPER = dataclasses.replace(Bert.six_layer(), vocab_size=30522)
"""Students: that of `sst2_sinkd` at mini scale, whose step is compiled, and the one of
paper scale, of which the formula alone tells."""
_OPERATIONS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def counted(program: str, num_devices: int) -> int:
    """Bytes that each device sends in a compiled program, by ring algorithms.

    Args:
        program: as text, in XLA's notation.
        num_devices: that take part in every collective operation.

    Raises:
        ValueError: a loop in it does not say how often it runs.
    """
    bodies = dict(_computations(program))
    (entry,) = (name for name in bodies if name.startswith("ENTRY "))

    def total(name: str) -> float:
        sent = 0.0
        for line in bodies[name]:
            found = re.search(rf"= (.*?) ({_OPERATIONS})(?:-start)?\(", line)
            if found:
                sent += _sent(found[2], _bytes(found[1]), num_devices)
            body = re.search(r"body=(%[\w.\-]+)", line)
            if body:
                times = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                inside = total(body[1])
                if inside and not times:
                    raise ValueError(f"how often does {body[1]} run?")
                sent += int(times[1]) * inside if times else 0
            called = re.search(r"(?:to_apply|calls)=(%[\w.\-]+)", line)
            if called and called[1] in bodies:
                sent += total(called[1])
        return sent

    return round(total(entry))


def _computations(program: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", []
    for line in program.splitlines():
        head = re.match(r"(ENTRY )?(%[\w.\-]+) \(.*\{$", line)
        if head:
            name, lines = (head[1] or "") + head[2], []
        elif line.startswith("}"):
            yield name, lines
        else:
            lines.append(line)


def _bytes(shapes: str) -> int:
    size = 0
    for kind, bits, dims in re.findall(r"(pred|[a-z]+(\d+))\[([\d,]*)\]", shapes):
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        size += count * (1 if kind == "pred" else int(bits) // 8)
    return size


def _sent(operation: str, result: int, num_devices: int) -> float:
    others = (num_devices - 1) / num_devices
    return {
        "all-gather": others * result,
        "all-to-all": others * result,
        "all-reduce": 2 * others * result,
        "reduce-scatter": (num_devices - 1) * result,
        "collective-permute": result,
    }[operation]


def predicted(
    batch_size: int, num_classes: int, num_devices: int, num_iters: int
) -> int:
    """The same by the formula, for all rows kept and masses known beforehand."""
    others = (num_devices - 1) / num_devices
    if num_classes == 2:
        # Points of student and teacher there, the gradient of the student's back.
        return round(others * _FLOAT * 3 * batch_size)
    loss = SinKD()
    # A sum over rows for every iteration there and back, and one between them.
    sums = (2 * num_iters + 1) * 2 * batch_size
    if sharding.by_classes(loss.cost, batch_size, batch_size, num_classes, num_devices):
        padded = num_classes + -num_classes % num_devices
        exchanged = 3 * batch_size * padded / num_devices
        moved = exchanged + 2 * batch_size**2
    else:
        moved = batch_size * num_classes
    return round(others * _FLOAT * (moved + sums))


def program_of(batch_size: int, num_classes: int, num_devices: int) -> str:
    """SinKD's value and gradient over so many devices, compiled."""
    mesh = data_mesh(jax.devices()[:num_devices])
    shape = jax.ShapeDtypeStruct(
        (batch_size, num_classes),
        jnp.float32,
        sharding=NamedSharding(mesh, PartitionSpec("data")),
    )

    def mean(student, teacher):
        losses = SinKD()(student, teacher)
        return losses.mean(), losses

    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(mean, has_aux=True))
        return str(step.lower(shape, shape).compile().as_text())


def predicted_step(
    student: Bert, batch_size: int, num_classes: int, num_devices: int
) -> int:
    """Bytes that each device sends in a step of `sst2_sinkd`, by the formula.

    Gradients are summed over devices, twice all parameters that a batch reaches; then
    the loss, and the scalars: examples, labels, and what is logged.
    """
    others = (num_devices - 1) / num_devices
    loss = predicted(batch_size, num_classes, num_devices, SinKD().num_iters)
    # Three counts and a flag, the sum of every loss, and with iterations the plan's
    # metrics.
    scalars = 3 * _FLOAT + 1 + _FLOAT * (3 if num_classes == 2 else 26)
    summed = _FLOAT * num_reached(student, num_classes) + scalars
    return round(others * (2 * summed + batch_size)) + loss


def num_reached(student: Bert, num_classes: int) -> int:
    """Parameters with a gradient, for single sentences of `WIDTH` tokens.

    Positions beyond have none, nor has the second kind of segment.
    """
    model = student.build(num_classes)
    batch = {"tokens": jnp.zeros((1, 8), jnp.int32)}
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    every = sum(leaf.size for leaf in jax.tree.leaves(params))
    return every - (student.max_length - WIDTH + 1) * student.width


def step_of(student: Bert, batch_size: int, num_classes: int, num_devices: int) -> str:
    """The training step of `sst2_sinkd` over so many devices, compiled."""
    mesh = data_mesh(jax.devices()[:num_devices])
    by_rows, everywhere = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ())
    )

    def rows(kind, *shape):
        return jax.ShapeDtypeStruct((batch_size, *shape), kind, sharding=by_rows)

    batch = {
        "tokens": rows(jnp.int32, WIDTH),
        "token_mask": rows(jnp.bool_, WIDTH),
        "labels": rows(jnp.int32),
        "mask": rows(jnp.bool_),
        "index": rows(jnp.int32),
        "teacher_logits": rows(jnp.float32, num_classes),
    }
    model = student.build(num_classes)
    training = Offline().build(
        Setting(
            learners={"student": model},
            teachers=(None,),
            objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0) + 0.8 * SinKD(),
            optimizer=AdamW(learning_rate=1e-3).build(10),
            num_steps=10,
            mesh=mesh,
        )
    )

    def begun(key, batch):
        return training.init(key, {"student": model.init(key, batch)}, (), batch)

    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(begun, jax.random.key(0), batch),
    )
    step: Any = training.step
    return str(step.lower(state, (), batch).compile().as_text())


def steps() -> list[dict[str, Any]]:
    """Of every number of devices, what a step of both students sends."""
    rows = []
    for rows_per_device, num_classes in STEPS:
        for num_devices in (*DEVICES, 128, 256, 512, 1024):
            batch_size = rows_per_device * num_devices
            problem = batch_size, num_classes, num_devices
            expected = predicted_step(COMPILED, *problem)
            counts = num_devices <= max(DEVICES)
            found = (
                counted(step_of(COMPILED, *problem), num_devices) if counts else None
            )
            # Each of the two terms of the formula is rounded.
            if found is not None and abs(found - expected) > 1:
                raise UserError(
                    f"a step of {problem}: the program sends {found} bytes, the "
                    f"formula says {expected}"
                )
            loss = predicted(*problem, SinKD().num_iters)
            rows.append(
                {
                    "batch_size": batch_size,
                    "num_classes": num_classes,
                    "num_devices": num_devices,
                    "bytes_of_step": expected,
                    "counted": counts,
                    "bytes_of_loss": loss,
                    "bytes_of_paper_step": predicted_step(PAPER, *problem),
                }
            )
            print(rows[-1])
    return rows


def benchmark() -> dict[str, Any]:
    """Counts and formula for every problem and number of devices."""
    rows = []
    for batch_size, num_classes in PROBLEMS:
        for num_devices in DEVICES:
            found = counted(
                program_of(batch_size, num_classes, num_devices), num_devices
            )
            expected = predicted(batch_size, num_classes, num_devices, 20)
            if found != expected:
                raise UserError(
                    f"B={batch_size}, V={num_classes}, {num_devices} devices: the "
                    f"program sends {found} bytes, the formula says {expected}"
                )
            rows.append(
                {
                    "batch_size": batch_size,
                    "num_classes": num_classes,
                    "num_devices": num_devices,
                    "bytes_sent_per_device": found,
                    "bytes_of_cost_matrix": _FLOAT * batch_size**2,
                }
            )
            print(rows[-1])
    return {
        "title": "What each device sends for SinKD's value and gradient",
        "setting": {"data": "20 iterations, float32, count and formula equal"},
        "rows": rows,
        "steps": steps(),
    }


def main() -> int:
    """The command line; returns the exit status."""
    options = measure.parser("communication", __doc__).parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    return measure.write_result(options.output, benchmark)


if __name__ == "__main__":
    sys.exit(main())
