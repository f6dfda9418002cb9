import argparse

import jax
import pytest

from benchmarks import loss_overhead, tables
from docs.conventions_page import page


@pytest.fixture
def result():
    options = argparse.Namespace(
        batch_sizes=[4], blocks=2, losses=1, block_seconds=0.001
    )
    found = loss_overhead.benchmark(options)
    return found | {
        "machine": {"cpu": "C", "num_cores": 2},
        "versions": {"jax": jax.__version__},
        "load_average": {"before": [0.1], "after": [0.2]},
        "started": "2026-01-02T03:04:05",
    }


@pytest.mark.slow
def test_every_pair_has_seconds_of_every_block(result):
    (race,) = result["overheads"]
    assert race["batch_size"] == 4
    (pair,) = race["pairs"].values()
    assert [len(row) for row in pair.values()] == [2, 2]
    lines = tables.section(result).splitlines()
    assert lines[-2].startswith("| nothing, ms a step |")
    assert lines[-1].startswith("| `KL()` |") and lines[-1].endswith("% |")


def test_table_tells_how_much_more():
    seconds = {"CrossEntropy()": [1.0, 2.0, 4.0], "KL()": [1.1, 2.2, 8.0]}
    race = {"batch_size": 32, "steps_in_block": 10, "pairs": {"KL()": seconds}}
    *_, base, kl = tables._overheads({"overheads": [race]})
    assert base == "| nothing, ms a step | 200.0 (150.0 to 300.0) |"
    assert kl == "| `KL()` | +10 (+10 to +55) % |"


def test_all_losses_take_part_under_names_of_their_own():
    compared = loss_overhead.objectives()
    assert len(compared) == 1 + len(page.LOSSES)
    assert all(len(mix.terms) == 2 for mix in list(compared.values())[1:])
