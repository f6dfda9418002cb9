import argparse

import numpy as np
import pytest

from benchmarks import procedures, tables
from kd.errors import UserError
from kd.views import Beside, Mixup

pytestmark = pytest.mark.slow


def options(**changes):
    few = {"batch_size": 8, "steps": 1, "blocks": 2, "no_compile": True}
    return argparse.Namespace(**few | {"rows": None, "no_pytorch": True} | changes)


def test_every_procedure_is_a_row_that_can_be_built():
    rows = procedures.rows()
    assert next(iter(rows)) == "KL" and {"DML", "CES-KD", "R2KD", "KD++"} <= rows.keys()
    assert "logit_mse" in rows["annealing"].objective.names
    with pytest.raises(UserError, match="no row 'kd'; there are KL, labels,"):
        procedures.rows(["kd"])


def test_steps_are_those_of_runs_and_every_row_has_its_seconds():
    names = ["KL", "mixup", "CES-KD", "CKD", "KD++", "DML"]
    result = procedures.benchmark(options(rows=names[1:]))
    (race,) = result["races"]
    assert {*race["seconds"]} == {*names} and next(iter(race["seconds"])) == "KL"
    assert all(len(seconds) == 2 for seconds in race["seconds"].values())
    assert {*result["seconds_of_first_steps"]} == {*names}
    rows = tables._races(result)
    assert rows[2].startswith("| every procedure: 2 | KL |") and len(rows) == 2 + 6


def test_only_what_a_view_asks_runs_in_the_step():
    rows = procedures.rows(["mixup"])
    cached, asked = (procedures.Trainer(rows[name], 8) for name in ("KL", "mixup"))
    assert cached._teachers == () and len(asked._teachers) == 1
    assert {"loss/kl", "loss/view/kl"} <= asked.step().keys()
    beside = rows["mixup"].view
    assert isinstance(beside, Beside) and isinstance(beside.view, Mixup)
    share, other = asked.drawn(beside.view)
    assert 0 <= share <= 1 and sorted(other) == [*range(8)]
    assert not np.any(other == np.arange(8))


@pytest.mark.parametrize("name", ["mixup", "DML"])
def test_pytorch_computes_the_same_or_nothing_is_timed(name, monkeypatch):
    pytest.importorskip("torch")
    result = procedures.benchmark(options(rows=[name], no_pytorch=False))
    assert [race["title"] for race in result["races"]] == ["every procedure", name]
    for found in result["largest_differences"][name].values():
        assert all(0 < apart <= 1e-4 for apart in found.values())
    monkeypatch.setattr(procedures, "_TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"of PyTorch \(.*\): .* off ours, more than"):
        procedures.benchmark(options(rows=[name], no_pytorch=False))
