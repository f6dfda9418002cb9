"""Views of single images, against loops over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd.views import Crop, Cutout, Flip


def make_batch(rows=40, masked=3):
    random = np.random.default_rng(0)
    return {
        "inputs": jnp.float32(random.normal(size=(rows, 7, 9, 2))),
        "labels": jnp.int32(random.integers(0, 4, rows)),
        "mask": jnp.arange(rows) < rows - masked,
        "teacher_logits": jnp.zeros((rows, 4)),
    }


def moved(image, down, right):
    """The image moved, with 0 where it is no more."""
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[y, x] = image[y - down, x - right]
    return result


def test_flip_mirrors_some(key):
    batch = make_batch()
    viewed = jax.jit(Flip())(key, batch)
    before, after = np.asarray(batch["inputs"]), np.asarray(viewed["inputs"])
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    mirrored = [
        np.array_equal(a[:, ::-1], b) for a, b in zip(before, after, strict=True)
    ]
    assert np.logical_xor(same, mirrored).all()
    assert 8 < sum(mirrored) < 32
    always, never = Flip(1.0)(key, batch), Flip(0.0)(key, batch)
    np.testing.assert_array_equal(always["inputs"], before[:, :, ::-1])
    np.testing.assert_array_equal(never["inputs"], before)


def test_crop_moves_every_image_its_own_way(key):
    batch = make_batch()
    viewed = jax.jit(Crop(2))(key, batch)
    ways = set()
    for before, after in zip(
        np.asarray(batch["inputs"]), np.asarray(viewed["inputs"]), strict=True
    ):
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(moved(before, down, right), after)
        ]
        assert len(found) == 1
        ways |= set(found)
    assert len(ways) > 12
    assert {down for down, _ in ways} == {right for _, right in ways} == {*range(-2, 3)}
    np.testing.assert_array_equal(Crop(0)(key, batch)["inputs"], batch["inputs"])


@pytest.mark.parametrize("size", [0, 1, 3, 4])
def test_cutout_makes_a_square_hole(size, key):
    batch = make_batch()
    viewed = jax.jit(Cutout(size))(key, batch)
    places = set()
    for before, after in zip(
        np.asarray(batch["inputs"]), np.asarray(viewed["inputs"]), strict=True
    ):
        hole = (after != before).all(axis=2)
        assert (after[hole] == 0).all()
        np.testing.assert_array_equal(after[~hole], before[~hole])
        rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
        # A rectangle that is the square, or what of it is on the image.
        assert hole.sum() == len(rows) * len(columns)
        for found, length in ((rows, 7), (columns, 9)):
            inside = size and found[0] > 0 and found[-1] < length - 1
            assert len(found) == size if inside else len(found) <= size
        places.add(hole.tobytes())
    assert len(places) > 15 if size else len(places) == 1


@pytest.mark.parametrize("view", [Flip(), Crop(), Cutout()])
def test_labels_stay_and_answers_do_not(view, key):
    batch = make_batch()
    viewed = view(key, batch)
    assert not view.changes_answers and not view.mixes
    assert viewed.keys() == batch.keys() - {"teacher_logits"}
    np.testing.assert_array_equal(viewed["labels"], batch["labels"])
    alone = view(key, {name: rows[:37] for name, rows in batch.items()})
    np.testing.assert_array_equal(viewed["inputs"][:37], alone["inputs"])


@pytest.mark.parametrize(
    ("view", "settings"),
    [(Flip, {"probability": 1.1}), (Crop, {"padding": -1}), (Cutout, {"size": -1})],
)
def test_what_is_out_of_range_is_refused(view, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must"):
        view(**settings)
