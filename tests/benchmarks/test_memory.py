"""The table of what was told and measured."""

from benchmarks import tables


def test_a_line_for_every_experiment():
    row = {
        "experiment": "wikitext_kd", "fields": ["batch_size=32"], "told": 96 * 2**20,
        "measured": [120 * 2**20, 80 * 2**20, 100 * 2**20],
        "parts": {"batch": 2**20, "optimizer state": 95 * 2**20},
    }  # fmt: skip
    *_, line = tables._memory({"memory": [row]})
    assert line == (
        "| `wikitext_kd` batch_size=32 | 96.0 | 100.0 (80.0 to 120.0) | 0.96 "
        "| optimizer state |"
    )
