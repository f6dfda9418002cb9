"""Whole runs with views: what is said, what is learnt, and going on bit for bit."""

import dataclasses
import struct

import numpy as np
import pytest
from conftest import killed_at_batch, tiny_experiment

from kd import run
from kd.data.images import ImageTask
from kd.divergences import KL
from kd.evaluate.classes import Classes
from kd.experiment import Experiment, Network
from kd.models.mlp import MLP
from kd.models.resnet import ResNet
from kd.objective import CrossEntropy
from kd.train import metrics_log
from kd.train.optimizer import AdamW
from kd.views import Beside, Composed, Crop, CutMix, Mixup, Pick, TokenMix

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Four classes of noise on 6 x 6 pixels, each with a bright pixel of its own."""
    directory = tmp_path_factory.mktemp("views")
    random = np.random.default_rng(0)
    (directory / "spots").mkdir()
    for part, num in (("train", 72), ("t10k", 40)):
        labels = (np.arange(num) % 4).astype(np.uint8)
        images = random.integers(0, 100, (num, 6, 6), dtype=np.uint8)
        images.reshape(num, 36)[np.arange(num), 3 * labels] = 255
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = directory / "spots" / f"{part}-{name}-ubyte"
            path.write_bytes(head + array.tobytes())
    recipe = Experiment(
        data=ImageTask(
            name="spots", target=Classes(tuple("abcd")), directory=str(directory)
        ),
        student=MLP(widths=(32,)),
        objective=1.0 * CrossEntropy(),
        optimizer=AdamW(learning_rate=1e-2, warmup=0.1),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )
    return dataclasses.replace(
        recipe,
        student=ResNet(widths=(4,), num_blocks=1, num_groups=2, stem_stride=2),
        teachers=(Network(recipe=recipe),),
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=4.0),
    )


def outcome(directory):
    """The bytes of the weights, and the log without its clocks."""
    rows = metrics_log.read(directory / "metrics.jsonl")
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    return (directory / "model" / "model.safetensors").read_bytes(), rows


def whole_and_resumed(experiment, place):
    """Runs it twice, once with a kill between; both must leave the same rows."""
    run.run(experiment, "whole", place.workspace)
    with killed_at_batch(10):
        run.run(experiment, "again", place.workspace)
    run.run(experiment, "again", place.workspace)
    assert any(line.startswith("resuming after step") for line in place.said)
    whole, again = (outcome(place.workspace.runs / n / "0") for n in ("whole", "again"))
    assert whole == again
    return whole[1]


def test_a_run_with_picked_mixtures_goes_on_bit_for_bit(spots, place):
    view = Composed((Crop(1), Beside(Pick(CutMix()))))
    # The last batch of an epoch is 8 examples of 16: half of its rows are masked.
    rows = whole_and_resumed(dataclasses.replace(spots, view=view), place)
    assert "teacher: runs in every step, to see the view of the batch" in place.said
    # Moved images are what the mixtures are made of and stand beside.
    assert not [*place.workspace.runs.glob("networks/answers/*.npy")]
    steps = [row for row in rows if row["split"] == "train"]
    assert len(steps) == 20 and all(row["loss/view/ce"] == 0 for row in steps)
    assert all(np.isfinite(row["loss"]) for row in steps)
    assert "loss/view/kl" in steps[0]
    page = (place.workspace.runs / "whole/0/report.html").read_text()
    assert "view/kl" in page


def test_a_run_with_interpolated_answers_reads_the_cached_ones(spots, place):
    view = Mixup(answers="interpolated")
    rows = whole_and_resumed(dataclasses.replace(spots, view=view), place)
    assert not any("runs in every step" in line for line in place.said)
    assert len([*place.workspace.runs.glob("networks/answers/*.npy")]) == 1
    assert {"loss/ce", "loss/kl"} <= rows[0].keys()


def test_a_run_on_sentences_goes_on_bit_for_bit(place):
    experiment = dataclasses.replace(
        tiny_experiment(),
        objective=0.1 * CrossEntropy() + 0.9 * KL(temperature=2.0),
        view=Beside(TokenMix(), labels=True),
    )
    rows = whole_and_resumed(experiment, place)
    assert rows[0]["loss/view/ce"] > 0


def test_beside_a_view_answers_to_the_batch_itself_are_read(spots, place):
    experiment = dataclasses.replace(spots, view=Beside(CutMix()))
    found = []
    for answers in ("cached", "live"):
        live = dataclasses.replace(experiment, answers=answers)
        run.run(live, answers, place.workspace)
        assert len([*place.workspace.runs.glob("networks/answers/*.npy")]) == 1
        found.append(outcome(place.workspace.runs / answers / "0")[1])
    for mine, other in zip(*found, strict=True):
        for name, value in other.items():
            if not isinstance(value, str):
                np.testing.assert_allclose(mine[name], value, rtol=1e-3, err_msg=name)


def test_mixing_nothing_is_the_run_without_a_view(spots, place):
    run.run(spots, "plain", place.workspace)
    view = Mixup(0.0, answers="interpolated")
    run.run(dataclasses.replace(spots, view=view), "mixed", place.workspace)
    ours, theirs = (outcome(place.workspace.runs / n / "0") for n in ("mixed", "plain"))
    for mine, other in zip(ours[1], theirs[1], strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            if not isinstance(value, str):
                np.testing.assert_allclose(mine[name], value, rtol=1e-4, err_msg=name)
