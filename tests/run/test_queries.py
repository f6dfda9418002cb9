"""How often a teacher is asked: what a summary says, and what a counter in it says."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import killed_at_batch
from points import experiment_on, write_table

import kd.networks.load
from kd import run
from kd.divergences import DKD, KL, ComparativeKL
from kd.evaluate.classes import Classes
from kd.experiment import Network
from kd.features import Hints, RKDAngle, RKDDistance
from kd.models.mlp import MLP
from kd.networks import answers
from kd.networks.load import Found
from kd.objective import CrossEntropy
from kd.procedures.curriculum import Curriculum
from kd.procedures.online import Online, Peer
from kd.run.shared import Shared
from kd.train.mesh import data_mesh
from kd.views import Beside, Composed, Mixup, Pick
from kd.views.view import View, with_inputs

pytestmark = pytest.mark.slow

TWO = Classes(("low", "high"))
KD = 0.5 * CrossEntropy() + 0.5 * KL()


@dataclasses.dataclass(frozen=True)
class Halved(View):
    """Inputs of half their size."""

    def __call__(self, key, batch, ask=None):
        return with_inputs(batch, inputs=batch["inputs"] / 2)


class Counter:
    """Counts the training examples that teachers get to see."""

    def __init__(self):
        self.in_steps = 0
        self.beforehand = set()
        self.load = kd.networks.load.load

    def __call__(self, found, task, data, dtype, **settings):
        loaded = self.load(found, task, data, dtype, **settings)
        rows = data.train.inputs(np.arange(len(data.train)))["inputs"]
        of_train = {row.tobytes() for row in rows}

        def note(rows, mask):
            if mask is not None:
                self.in_steps += int(np.sum(mask))
            else:
                seen = {np.asarray(row).tobytes() for row in rows}
                self.beforehand |= {(found.place, row) for row in seen & of_train}

        def apply(params, batch, key):
            jax.debug.callback(note, batch["inputs"], batch.get("mask"))
            return loaded.model.apply(params, batch, key)

        return loaded._replace(model=loaded.model._replace(apply=apply))

    @property
    def number(self):
        jax.effects_barrier()
        return self.in_steps + len(self.beforehand)


@pytest.fixture
def recipe(tmp_path):
    write_table(tmp_path / "data", lambda x, y: "high" if y > x else "low")
    return dataclasses.replace(
        experiment_on(tmp_path / "data", TWO, 1.0 * CrossEntropy()),
        num_steps=0, num_epochs=2,
    )  # fmt: skip


@pytest.fixture
def taught(recipe):
    """By three teachers at most."""

    def make(num_teachers=1, **fields):
        teachers = tuple(
            Network(recipe=dataclasses.replace(recipe, student=MLP(widths=(n,))))
            for n in range(4, 4 + num_teachers)
        )
        sample = fields.pop("data", {})
        settings = {"objective": KD} | fields
        return dataclasses.replace(
            recipe, teachers=teachers,
            data=dataclasses.replace(recipe.data, **sample), **settings,
        ).sharing_data()  # fmt: skip

    return make


@pytest.fixture
def counted(place, monkeypatch):
    """Runs an experiment on one device, in a fresh process's memory."""

    def run_it(experiment, name="one", **options):
        counter = Counter()
        monkeypatch.setattr(kd.networks.load, "load", counter)
        workspace = dataclasses.replace(
            place.workspace, mesh=data_mesh(jax.devices()[:1]), shared=Shared()
        )
        summary = run.run(experiment, name, workspace)
        monkeypatch.setattr(kd.networks.load, "load", counter.load)
        return summary, counter.number

    return run_it


CASES = {
    "cached": ({}, lambda n: n),
    "of a part": ({"data": {"fraction": 0.5}}, lambda n: round(n / 2)),
    "two": ({"num_teachers": 2}, lambda n: 2 * n),
    "live": ({"answers": "live"}, lambda n: 2 * n),
    "live, of a part": (
        {"answers": "live", "data": {"fraction": 0.5}}, lambda n: 2 * round(n / 2),
    ),
    "live, in the middle of an epoch": (
        {"answers": "live", "num_epochs": 0, "num_steps": 9, "num_teachers": 2},
        lambda n: None,
    ),
    "in parts": ({"answers": "live", "num_microbatches": 4}, lambda n: 2 * n),
    "vectors": ({"objective": KD + RKDDistance()}, lambda n: n),
    "hidden states": (
        {"objective": KD + RKDDistance() + RKDAngle(read="first")}, lambda n: 2 * n,
    ),
    "labels alone": ({"objective": 1.0 * CrossEntropy()}, lambda n: 0),
    "curriculum": (
        {"num_teachers": 3, "procedure": Curriculum(), "answers": "cached"},
        lambda n: 3 * n,
    ),
    "watched": ({"answers": "live", "term_gradients": "watched"}, lambda n: 2 * n),
    "a view": ({"view": Mixup()}, lambda n: 2 * n),
    "interpolated": ({"view": Mixup(answers="interpolated")}, lambda n: n),
    "beside a view": ({"view": Beside(Mixup())}, lambda n: n + 2 * n),
    "beside a view, live": (
        {"view": Beside(Mixup()), "answers": "live"}, lambda n: 2 * 2 * n,
    ),
    "beside a view, hidden states": (
        {"view": Beside(Mixup()), "objective": KD + Hints()}, lambda n: 4 * n,
    ),
    "beside a view, interpolated": (
        {"view": Beside(Mixup(answers="interpolated"))}, lambda n: n,
    ),
    "after a view": (
        {"view": Composed((Halved(), Beside(Mixup()))), "num_teachers": 2},
        lambda n: 2 * (2 * n + 2 * n),
    ),
    # Three mixtures of each, then what is kept.
    "picked": (
        {"view": Pick(Mixup(), num_views=3, by="teacher")}, lambda n: 2 * (3 + 1) * n,
    ),
    "picked by the student": ({"view": Pick(Mixup())}, lambda n: 2 * n),
    "picked, interpolated": (
        {"view": Pick(Mixup(answers="interpolated"), by="teacher")}, lambda n: n,
    ),
    "picked by the clean": (
        {"view": Pick(Mixup(), by="teacher", entropy_of="clean")},
        lambda n: 2 * (1 + 1) * n,
    ),
    "picked beside, in parts": (
        {"view": Beside(Pick(Mixup(), by="teacher")), "num_microbatches": 4},
        lambda n: n + 2 * (2 + 1) * n,
    ),
    "picked beside by the clean": (
        {"view": Beside(Pick(Mixup(), by="teacher", entropy_of="clean"))},
        lambda n: n + 2 * n,
    ),
    "online": ({"procedure": Online()}, lambda n: 0),
    "online, and a teacher": (
        {"procedure": Online(with_teachers=True), "answers": "live"}, lambda n: 2 * n,
    ),
    "online, and vectors of a teacher": (
        {
            "procedure": Online(
                peers=(Peer(objective=KD + RKDAngle(teacher_layer=0)), Peer()),
                with_teachers=True,
            ),
            "objective": KD + RKDDistance(),
        },
        lambda n: n,
    ),
    "online, and other vectors of one layer": (
        {
            "procedure": Online(
                peers=(Peer(objective=KD + RKDAngle(read="first")),),
                with_teachers=True,
            ),
            "objective": KD + RKDDistance(),
        },
        lambda n: 2 * n,
    ),
    "online, a teacher and a view": (
        {
            "procedure": Online(with_teachers=True),
            "view": Beside(Pick(Mixup(), by="teacher")),
        },
        lambda n: n + 2 * (2 + 1) * n,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_counter_in_the_teacher_agrees(case, taught, counted):
    fields, expected = CASES[case]
    summary, number = counted(taught(**fields))
    assert summary["teacher_queries"] == number
    wanted = expected(summary["data"]["num_train"])
    assert wanted is None or abs(number - wanted) <= 2
    if case == "live, in the middle of an epoch":
        assert summary["data"]["num_train"] < number / 2 < 9 * 16


def test_a_second_phase_has_asked_as_often_as_the_first(taught, counted):
    """All that two phases ask, whichever of them asks."""
    first = taught(answers="live")
    second = dataclasses.replace(
        first, objective=1.0 * CrossEntropy(), start=Network(recipe=first)
    )
    summary, number = counted(second)
    assert summary["teacher_queries"] == number == 2 * summary["data"]["num_train"]
    third = dataclasses.replace(first, start=Network(recipe=second))
    summary, number = counted(third, "third")
    assert number == 2 * summary["data"]["num_train"]
    assert summary["teacher_queries"] == 2 * number


def test_a_run_that_was_stopped_has_asked_as_often(taught, counted, place):
    live = taught(answers="live")
    counted(live, "whole")
    with killed_at_batch(8):
        counted(live)
    summary, number = counted(live)
    assert any(line.startswith("resuming after step 6 of") for line in place.said)
    assert summary["teacher_queries"] == 2 * summary["data"]["num_train"] > number


def test_a_teacher_that_is_asked_about_a_few(taught, counted, place):
    few = taught(
        data={"unanswered": 0.75, "unlabelled": 0.2},
        objective=1.0 * CrossEntropy() + 1.0 * ComparativeKL() + 0.5 * DKD(),
    )
    summary, number = counted(few)
    drawn = summary["data"]["sample"]
    assert drawn["num_answered"] == pytest.approx(drawn["num_examples"] / 4, abs=1)
    assert summary["teacher_queries"] == number == drawn["num_answered"]
    directory = place.workspace.runs / "one/0"
    page = (directory / "report.html").read_text()
    assert f"teachers may be asked about {number}." in page
    assert "<dt>teacher queries</dt>" in page and f"<dd>{number}<" in page
    assert any(f"; teachers answer on {number}" in line for line in place.said)
    # Whoever comes next finds the answers.
    again = dataclasses.replace(few, seed=1)
    summary, number = counted(again, "again")
    assert number == 0 and summary["teacher_queries"] == drawn["num_answered"]


def test_examples_without_what_every_term_needs_take_no_part(taught, counted, place):
    comparative = taught(data={"unanswered": 0.75}, objective=1.0 * ComparativeKL())
    summary, number = counted(comparative)
    drawn = summary["data"]["sample"]
    idle = drawn["num_examples"] - number
    assert f"{idle} examples without a teacher's answer take no part: every term of " \
        "the objective needs one" in place.said  # fmt: skip
    assert summary["speed"]["steps"] == 2 * -(-number // 16)
    both = taught(
        data={"unanswered": 0.75, "unlabelled": 0.75}, objective=CrossEntropy() + KL()
    )
    summary, _ = counted(both, "both")
    lines = [line for line in place.said if "without a label and an answer" in line]
    assert len(lines) == 1 and lines[0].endswith("needs one of them")
    # Who asks no teacher lacks no answer.
    alone = taught(data={"unanswered": 0.75}, procedure=Online())
    summary, _ = counted(alone, "alone")
    assert summary["speed"]["steps"] == 2 * -(-drawn["num_examples"] // 16)


def test_a_run_on_a_few_answers_goes_on_bit_for_bit(taught, counted, place):
    few = taught(
        data={"unanswered": 0.75}, objective=CrossEntropy() + 1.0 * ComparativeKL()
    )
    counted(few, "whole")
    with killed_at_batch(8):
        counted(few, "again")
    counted(few, "again")
    assert any(line.startswith("resuming after step 6 of") for line in place.said)
    weights = [
        (place.workspace.runs / name / "0/model/model.safetensors").read_bytes()
        for name in ("whole", "again")
    ]
    assert weights[0] == weights[1]


class Same(View):
    changes_answers = True

    def __call__(self, key, batch, ask=None):
        return batch


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answers": "live"}, "answers=live asks about all; set answers=cached"),
        ({"objective": KD + RKDDistance()}, "rkd_distance has the teacher run in"),
        ({"view": Same()}, "a view would mix, or change, what answers"),
    ],
)
def test_a_few_answers_are_cached_ones(taught, fields, message):
    with pytest.raises(ValueError, match=f"data.unanswered=0.5 reads .*{message}"):
        taught(data={"unanswered": 0.5}, **fields)


def test_answers_of_a_few_are_those_among_all(taught, place):
    """In their places, NaN elsewhere; and a damaged file is made anew."""
    workspace, said = place
    experiment = taught()
    run.run(experiment, "one", workspace)
    corpus = run.read(experiment.data, workspace)
    data = experiment.data.prepare(corpus, workspace.runs / "one/0/model")
    found = Found(str(workspace.runs / "one/0/model"), "here")
    loaded = kd.networks.load.load(found, experiment.data, data, "float32")

    def ask(about):
        return answers.consult(
            [loaded], TWO.ensemble, data, about=about, in_step=False, target=TWO,
            mesh=workspace.mesh,
            cache=workspace.runs / "asked", say=said.append,
        )  # fmt: skip

    whole = ask(np.arange(len(data.train)))
    about = np.array([0, 3, 4, 50, len(data.train) - 1])
    few = ask(about)
    assert (few.num_asked, whole.num_asked) == (5, len(data.train))
    assert whole.train and few.train and ask(None).train is None
    np.testing.assert_array_equal(few.train[0][about], whole.train[0][about])
    assert np.isnan(np.delete(few.train[0], about, axis=0)).all()
    assert np.isfinite(whole.train[0]).all()
    paths = sorted(workspace.runs.glob("asked/*.npy"), key=lambda p: p.stat().st_size)
    assert len(paths) == 2
    paths[0].write_bytes(b"\x93NUMPY")
    again = ask(about)
    assert again.train
    np.testing.assert_array_equal(again.train[0], few.train[0])
    assert any("is damaged; computing the teacher's answers again" in x for x in said)
