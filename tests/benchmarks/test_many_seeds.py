import argparse

import pytest

from benchmarks import many_seeds, tables

pytestmark = pytest.mark.slow


def test_seeds_are_shown_to_agree_and_every_way_has_its_seconds():
    options = argparse.Namespace(
        problems=["gtzan"], seeds=[2], blocks=2, steps=3, processes=1, data_dir=None
    )
    result = many_seeds.benchmark(options)
    (race,) = result["races"]
    assert [*race["seconds"]] == [many_seeds.TOGETHER, many_seeds.ALONE, "1 processes"]
    assert all(len(seconds) == 2 for seconds in race["seconds"].values())
    assert race["examples"] == [2 * 3 * 32] * 2
    assert 0 <= result["largest_differences"]["loss"]["gtzan, 2 seeds"] < 1e-4
    rows = tables._races(result)
    assert rows[-1].startswith("|  | 1 processes |")


def test_seeds_that_part_are_not_timed(monkeypatch):
    monkeypatch.setattr(many_seeds, "_TOLERANCE", -1.0)
    with pytest.raises(many_seeds.UserError, match=r"are .* apart, more than -1e\+00"):
        many_seeds.check(many_seeds.gtzan(None), 2)
