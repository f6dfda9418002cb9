import pytest

from benchmarks import measure, tables


def test_race_gives_every_contender_every_block_and_rotates_who_begins():
    log = []
    contenders = {
        name: lambda i, name=name: log.append((i, name)) for name in ("a", "b", "c")
    }
    found = measure.race(contenders, [1, 1, 1], title="t")
    assert log[:6] == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]
    assert {name: len(row) for name, row in found["seconds"].items()} == {
        "a": 3, "b": 3, "c": 3
    }  # fmt: skip


def test_race_repeats_every_contender_as_often_as_it_should(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    done = []
    found = measure.race(
        {"a": lambda i: done.append("a"), "b": lambda i: done.append("b")},
        [1, 1],
        title="t",
        repeats={"a": 4, "b": 1},
    )
    assert "".join(done) == "aaaab" + "baaaa"
    # A second passes between two looks at the clock, however much is done.
    assert found["seconds"] == {"a": [0.25, 0.25], "b": [1, 1]}
    assert found["repeats"] == {"a": 4, "b": 1}


def test_readme_shows_the_raw_results():
    readme = tables.README.read_text(encoding="utf-8")
    assert tables.with_tables(readme) == readme, "run python -m benchmarks.tables"


def test_table_has_rates_and_factors_of_the_blocks():
    result = {
        "title": "T",
        "aim": 3.0,
        "machine": {"cpu": "C", "num_cores": 2},
        "versions": {"jax": "1"},
        "load_average": {"before": [0.1], "after": [0.2]},
        "setting": {"data": "D"},
        "started": "2026-01-02T03:04:05",
        "largest_differences": {"loss": 1e-7},
        "races": [
            {
                "title": "R",
                "examples": [10, 10, 10],
                "seconds": {"ours": [1.0, 1.0, 2.0], "theirs": [2.0, 3.0, 8.0]},
            }
        ],
    }
    rows = tables.section(result).splitlines()[-2:]
    assert rows[0] == "| R: 3 | ours | 10 (8 to 10) |  |"
    assert rows[1] == "|  | theirs | 3 (2 to 4) | 3.00 (2.50 to 3.50) |"


@pytest.mark.parametrize("data_dir", [None, "somewhere"])
def test_experiment_and_its_teacher_have_the_data_asked_for(data_dir):
    experiment = measure.mini_experiment(data_dir)
    assert experiment.teacher and experiment.teacher.recipe
    assert experiment.data == experiment.teacher.recipe.data
    assert experiment.data.source == ("local" if data_dir else "bundled")
    assert experiment.data.directory == (data_dir or "")
