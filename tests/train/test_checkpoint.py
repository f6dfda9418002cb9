import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.errors import UserError
from kd.train.checkpoint import Checkpoints
from kd.train.mesh import data_mesh, replicate
from kd.train.optimizer import AdamW
from kd.types import TrainState


def state(step):
    params = {"student": {"w": jnp.full((300, 40), float(step))}, "objective": ()}
    made = TrainState(
        step=jnp.int32(step), params=params, opt_state=(), key=jax.random.key(3)
    )
    return replicate(made, data_mesh())


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints", keep=2)
    yield opened
    opened.close()


def damage(directory):
    """Flips one bit in every larger file of a checkpoint."""
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_size > 300:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)


def test_nothing_saved_nothing_restored(checkpoints):
    assert checkpoints.restore(state(0)) == (None, [])


def test_restores_the_newest_bit_for_bit(checkpoints):
    for step in (5, 10, 15):
        checkpoints.save(state(step))
    assert checkpoints.steps == [10, 15]
    restored, problems = checkpoints.restore(state(0))
    assert not problems
    jax.tree.map(np.testing.assert_array_equal, restored.params, state(15).params)
    assert restored.step == 15
    np.testing.assert_array_equal(
        jax.random.key_data(restored.key), jax.random.key_data(jax.random.key(3))
    )
    assert restored.params["student"]["w"].sharding == state(0).step.sharding


def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoints):
    for step in (10, 15):
        checkpoints.save(state(step))
    damage(checkpoints.directory / "15")
    restored, problems = checkpoints.restore(state(0))
    assert restored.step == 10
    assert len(problems) == 1 and "step 15 cannot be read" in problems[0]
    assert "\n" not in problems[0]
    assert (
        len(list((checkpoints.directory.parent / "damaged-checkpoints").iterdir())) == 1
    )
    # Its step is reached again and can be saved again.
    checkpoints.save(state(15))
    assert checkpoints.restore(state(0))[0].step == 15


def test_all_damaged(checkpoints):
    checkpoints.save(state(10))
    damage(checkpoints.directory / "10")
    restored, problems = checkpoints.restore(state(0))
    assert restored is None and len(problems) == 1


def test_wrong_content_is_found_by_its_checksum(checkpoints, monkeypatch):
    checkpoints.save(state(10))
    monkeypatch.setattr("kd.train.checkpoint._checksum", lambda state: -1)
    restored, problems = checkpoints.restore(state(0))
    assert restored is None and "its checksum is wrong" in problems[0]


def other(**changes):
    """A state of step 0 that differs in its structure."""
    return replicate(state(0).replace(**changes), data_mesh())


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            {"params": {"student": {"w": jnp.zeros((300, 41))}, "objective": ()}},
            r"has float32\[300, 40\] as params/student/w and this run float32\[300, 41",
        ),
        (
            {"params": {"student": {"w": jnp.zeros((300, 40), jnp.bfloat16)}}},
            r"has float32\[300, 40\] as params/student/w and this run bfloat16",
        ),
        ({"opt_state": (jnp.int32(0),)}, "nothing as opt_state/0 and this run int32"),
        ({"key": jax.random.key(0, impl="rbg")}, "key<fry>.* as key .*key<rbg>"),
    ],
    ids=["shape", "dtype", "structure", "key"],
)
def test_a_whole_checkpoint_of_other_arrays_is_refused_and_stays(
    checkpoints, like, message
):
    checkpoints.save(state(10))
    with pytest.raises(UserError, match=message) as refused:
        checkpoints.restore(other(**like))
    assert "\n" not in str(refused.value)
    assert not (checkpoints.directory.parent / "damaged-checkpoints").exists()
    assert checkpoints.restore(state(0))[0].step == 10


def test_notes_come_back_with_the_state(checkpoints):
    checkpoints.save(state(10), {"seconds": 1.5})
    checkpoints.save(state(15), {"seconds": 2.5})
    again = Checkpoints(checkpoints.directory)
    restored, _ = again.restore(state(0))
    assert restored is not None and restored.step == 15
    assert again.notes == {"seconds": 2.5}
    again.close()


def test_a_checkpoint_without_a_record_is_read(checkpoints, monkeypatch):
    monkeypatch.setattr(
        "kd.train.checkpoint._sealed", lambda record: {"crc32": record["arrays"]}
    )
    checkpoints.save(state(10), {"seconds": 1.5})
    restored, problems = checkpoints.restore(state(0))
    assert restored.step == 10 and not problems and checkpoints.notes == {}


def test_a_failure_of_memory_is_no_damage(checkpoints, monkeypatch):
    checkpoints.save(state(10))

    def full(state):
        raise MemoryError

    monkeypatch.setattr("kd.train.checkpoint._checksum", full)
    with pytest.raises(MemoryError):
        checkpoints.restore(state(0))
    assert checkpoints.steps == [10]


def test_the_state_of_an_optimizer_with_frozen_parameters(checkpoints):
    params = {"student": {"a": jnp.ones(3), "b": jnp.ones((2, 2))}}
    optimizer = AdamW(frozen=("a",)).build(10)
    made = other(params=params, opt_state=optimizer.init(params), step=jnp.int32(4))
    checkpoints.save(made)
    restored, problems = checkpoints.restore(made)
    assert restored is not None and not problems
    assert jax.tree.structure(restored) == jax.tree.structure(made)
