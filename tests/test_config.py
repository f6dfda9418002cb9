import dataclasses
import json

import optax
import pytest

from kd import catalog, config
from kd.errors import UserError
from kd.features import EmbeddingCompression, RKDDistance, pkd
from kd.objective import CrossEntropy


@pytest.fixture
def sinkd():
    return catalog.load("sst2_sinkd", "mini")


def test_the_recipe_of_a_given_teacher_does_not_matter(tmp_path):
    changed = config.override(
        catalog.load("sst2_kd", "mini"), f"teacher={tmp_path}",
        "student.max_length=128", "data.widths=16,128",
    )  # fmt: skip
    assert changed.teacher.recipe is None
    assert changed.sharing_data() == changed


def test_a_teacher_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "taught").mkdir()
    changed = config.override(catalog.load("sst2_kd", "mini"), "teacher=~/taught")
    assert changed.teacher.place == str(tmp_path / "taught")


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("batch_size=64", lambda e: e.batch_size == 64),
        ("optimizer.learning_rate=1e-4", lambda e: e.optimizer.learning_rate == 1e-4),
        ("data.widths=16,48", lambda e: e.data.widths == (16, 48)),
        ("compute_dtype=bfloat16", lambda e: e.compute_dtype == "bfloat16"),
        ("data.tokenizer.lowercase=false", lambda e: not e.data.tokenizer.lowercase),
        ("objective.sinkd.weight=0.5", lambda e: e.objective.terms[2].weight == 0.5),
        ("objective.sinkd.epsilon=1", lambda e: e.objective.terms[2].loss.epsilon == 1),
        ("term_gradients=balanced", lambda e: e.term_gradients == "balanced"),
        ("answers=live", lambda e: e.answers == "live"),
        ("teacher.recipe.seed=3", lambda e: e.teacher.recipe.seed == 3),
        (
            "data.tokenizer.vocabulary=a=b",
            lambda e: e.data.tokenizer.vocabulary == "a=b",
        ),
    ],
)
def test_overrides(assignment, read):
    experiment = catalog.load("sst2_sinkd", "mini")
    changed = config.override(experiment, assignment)
    assert read(changed)
    assert not read(experiment)


def test_losses_of_hidden_states_are_changed_like_others(sinkd):
    mix = pkd(6, 12) + RKDDistance() + EmbeddingCompression()
    experiment = dataclasses.replace(sinkd, objective=mix)
    changed = config.override(
        experiment,
        "objective.normalized_mse_layers.student_layers=1,2",
        "objective.normalized_mse_layers.teacher_layers=3,-2",
        "objective.normalized_mse_layers.loss.read=mean",
        "objective.rkd_distance.teacher_layer=4",
        "objective.embedding_compression.distance.read=all",
    )
    over, distance, _ = (term.loss for term in changed.objective.terms)
    assert (over.student_layers, over.teacher_layers) == ((1, 2), (3, -2))
    assert over.loss.read == "mean" and distance.teacher_layer == 4
    with pytest.raises(UserError, match="expected mean or first or all"):
        config.override(experiment, "objective.rkd_distance.read=last")
    assert json.dumps(config.to_json(changed))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "batchsize=3",
            "no field 'batchsize' in the experiment; did you mean batch_si",
        ),
        ("optimizer.lr=1", r"no field 'lr' in optimizer.*fields: learning_rate, wa"),
        ("objective.mse.weight=1", r"no field 'mse' in objective.*fields: ce, kl, sin"),
        ("objective.kl.tau=1", r"no field 'tau' in objective.kl.*weight, temperature"),
        ("batch_size=many", "expected a whole number, got 'many'"),
        ("num_epochs=1", "num_epochs or num_steps and the other is 0, got 1 and 4000"),
        ("teacher.recipe.data.tokenizer.size=9", "set data.tokenizer.size instead"),
        ("student.pretrained=bert", "no field 'pretrained' in student"),
        ("objective.kl.weight=nan", "expected a finite number, got 'nan'"),
        ("batch_size=1.5", "expected a whole number, got '1.5'"),
        ("batch_size=0", "batch_size must be at least 1, got 0"),
        ("optimizer.learning_rate=fast", "expected a finite number, got 'fast'"),
        ("optimizer.learning_rate=-1", "learning_rate must be positive"),
        ("optimizer.learning_rate=inf", "expected a finite number"),
        ("data.tokenizer.lowercase=yes", "expected true or false, got 'yes'"),
        ("compute_dtype=int8", "expected float32 or bfloat16, got 'int8'"),
        ("optimizer=fast", "it is a group; set one of learning_rate"),
        ("batch_size.x=3", "batch_size has no fields"),
        ("data.widths=32,16", "widths must be increasing"),
        ("data.fraction=0", r"data.fraction=0: fraction must lie in \(0, 1\], got 0.0"),
        ("data.label_noise=2", r"label_noise must lie in \[0, 1\], got 2.0"),
        ("data.columns=", "columns needs the names of 1 or 2 columns"),
        ("objective.sinkd.num_groups=3", "does not divide the 32 rows of a batch"),
        ("optimizer.b2=2", r"b2 must be in \[0, 1\)"),
        ("data.widths=16,128", "exceeds student.max_length, 64"),
        ("objective.sinkd.epsilon=0", "epsilon must be positive"),
        ("objective.sinkd.convention=mine", "expected invariant or faithful"),
        ("student.num_heads=3", r"=3: .*num_heads"),
        ("teacher=none", "needs a teacher and there is none"),
        ("teacher=/no/such/place", "expected a directory or a name on the hub"),
        ("batch_size", "expected field=value"),
        ("=3", "expected field=value"),
    ],
)
def test_bad_overrides_say_what_would_be_right(sinkd, assignment, message):
    with pytest.raises(UserError, match=message) as refused:
        config.override(sinkd, assignment)
    assert "\n" not in str(refused.value)


def test_overrides_are_checked_together():
    experiment = catalog.load("sst2_sinkd", "mini")
    changed = config.override(experiment, "num_epochs=2", "num_steps=0")
    assert (changed.num_epochs, changed.num_steps) == (2, 0)
    longer = ["data.widths=16,128", "student.max_length=128"]
    longer += ["teacher.recipe.student.max_length=128"]
    for order in (longer, longer[::-1]):
        assert config.override(experiment, *order).data.widths == (16, 128)


def test_chosen_layers(sinkd):
    small = catalog.load("sst2_sinkd", "small")
    changed = config.override(small, "start.change.chosen=0,2,4")
    assert changed.start.change.chosen == (0, 2, 4)
    changed = config.override(small, "start.change.chosen=first 3")
    assert changed.start.change.numbers(6) == (0, 1, 2)
    with pytest.raises(UserError, match="must be increasing"):
        config.override(small, "start.change.chosen=3,1")
    with pytest.raises(
        UserError, match=r"(start is set as a whole|parts of it are set)"
    ):
        config.override(small, "start.change.chosen=1", "start=a/b")


def test_settings_are_not_lost_by_another(sinkd):
    for order in (1, -1):
        both = ["teacher.recipe.num_steps=12", "answers=live"][::order]
        changed = config.override(sinkd, *both)
        assert changed.teacher.recipe.num_steps == 12 and changed.answers == "live"
        with pytest.raises(UserError, match=r"(set as a whole|parts of it are set)"):
            config.override(
                sinkd, *["teacher.recipe.num_steps=12", "teacher=a"][::order]
            )
    with pytest.raises(UserError, match="set answers=live instead"):
        config.override(sinkd, "teacher=live")


def test_functions_that_differ_inside_are_told_apart():
    one, two = (lambda step: 0.5 * step), (lambda step: 0.25 * step)
    two.__qualname__ = one.__qualname__
    trees = [config.to_json(f * CrossEntropy()) for f in (one, two)]
    assert config.differences(*trees)


def test_a_baseline_may_go_without_its_teacher():
    baseline = catalog.load("sst2_ce", "mini")
    assert config.override(baseline, "teacher=none").teacher is None


def test_student_and_teacher_share_data_and_tokenizer(sinkd):
    changed = config.override(sinkd, "data.tokenizer.size=100", "data.source=bundled")
    data = changed.sharing_data().teacher.recipe.data
    assert (data.tokenizer.size, data.source) == (100, "bundled")


def test_every_recipe_has_a_sample_of_its_own(sinkd):
    teacher = sinkd.sharing_data().teacher
    changed = config.override(
        sinkd, "data.fraction=0.1", "data.label_noise=0.2", "data.subset_seed=3"
    ).sharing_data()
    assert changed.data.fraction == 0.1
    assert changed.teacher == teacher
    both = config.override(
        sinkd, "data.fraction=0.1", "teacher.recipe.data.fraction=0.5",
        "data.widths=16,32",
    ).sharing_data()  # fmt: skip
    data = both.teacher.recipe.data
    assert (both.data.fraction, data.fraction, data.widths) == (0.1, 0.5, (16, 32))


def test_a_number_has_no_label_noise():
    experiment = catalog.load("stsb_kd", "mini")
    with pytest.raises(UserError, match="the target is a number; it must be 0"):
        config.override(experiment, "data.label_noise=0.1")
    fewer = config.override(experiment, "data.fraction=0.1", "data.unlabelled=0.5")
    assert fewer.data.unlabelled == 0.5


def test_unknown_experiment_lists_those_there_are():
    with pytest.raises(UserError) as refused:
        catalog.load("sst2_sinkdd", "mini")
    assert "did you mean sst2_sinkd?" in str(refused.value)
    for name in catalog.names():
        assert f"{name} " in str(refused.value)


def test_json_names_classes_and_schedules(sinkd):
    tree = config.to_json(sinkd)
    assert tree["objective"]["sinkd"] == {
        "weight": 0.8, "class": "SinKD", "temperature": 2.0, "epsilon": 0.1,
        "num_iters": 20, "gradient": "unrolled", "cost": {"class": "L1"},
        "num_groups": 1, "convention": "invariant",
    }  # fmt: skip


def test_json_tells_schedules_apart(sinkd):
    def tree(num_steps):
        schedule = optax.join_schedules(
            [optax.linear_schedule(1.0, 0.0, num_steps), lambda step: 0.0], [5]
        )
        mix = schedule * CrossEntropy()
        return json.loads(json.dumps(config.to_json(mix)))

    assert config.differences(tree(10), tree(10)) == []
    (difference,) = config.differences(tree(10), tree(1000))
    assert "transition_steps" in difference


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(TypeError, match="make it a frozen dataclass"):
        config.to_json([object()])


def test_differences_name_their_paths():
    ours = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    theirs = {"a": {"b": 2, "c": [1, 2]}, "e": 3}
    assert config.differences(ours, theirs) == ["a.b: 2 -> 1", "e: 3 -> None"]
    assert config.differences(ours, ours) == []


def test_the_fields_of_several_experiments():
    kd, sinkd = (catalog.load(name, "mini") for name in ("sst2_kd", "sst2_sinkd"))
    for path in ("objective.sinkd.weight", "batch_size", "teacher.recipe.seed"):
        assert config.no_field([kd, sinkd], path) is None
    assert config.no_field([kd], "teacher") is None
    told = str(config.no_field([kd], "objective.sinkd.weight"))
    assert told == ("objective.sinkd: no field 'sinkd' in objective (fields: ce, kl)")
    # Those of the experiment in which the path leads furthest.
    told = str(config.no_field([kd, sinkd], "objective.sinkd.epsilom"))
    assert "no field 'epsilom' in objective.sinkd; did you mean epsilon?" in told
    told = str(config.no_field([kd, sinkd], "objective.sinkdd.weight"))
    assert "did you mean sinkd? (fields: ce, kl, sinkd)" in told
    told = str(config.no_field([kd], "batch_size.x"))
    assert told == "batch_size has no fields"


def test_a_schedule_with_a_variable_that_was_never_set_is_recorded():
    """Without a bound on its value, optax leaves the function that clips unset."""
    first, second = (
        config.to_json(optax.exponential_decay(100.0, steps, 0.7, staircase=True))
        for steps in (10, 20)
    )
    assert first != second
    bounded = optax.exponential_decay(100.0, 10, 0.7, staircase=True, end_value=1.0)
    assert config.to_json(bounded) != first
