import json
import sys
import types

import pytest

from kd.errors import UserError
from kd.train import metrics_log
from kd.train.metrics_log import MetricsLog


def row(step, split="train"):
    return {"step": step, "split": split, "loss": 1.0 / step}


def test_rows_come_back(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate(after=0)
    rows = [row(1), row(2), row(2, "dev")]
    for each in rows:
        log.write(each)
    log.close()
    assert metrics_log.read(log.path) == rows


def test_resuming_forgets_what_will_come_again(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate(after=0)
    for step in range(1, 6):
        log.write(row(step))
    log.close()
    with open(log.path, "a") as file:
        file.write('{"step": 6, "spl')  # cut short by a crash
    log = MetricsLog(log.path)
    log.truncate(after=3)
    log.write(row(4, "dev"))
    log.close()
    found = metrics_log.read(log.path)
    assert [(r["step"], r["split"]) for r in found] == [
        (1, "train"), (2, "train"), (3, "train"), (4, "dev"),
    ]  # fmt: skip
    assert all(json.loads(line) for line in log.path.read_text().splitlines())


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    scalars, purged = [], []

    class SummaryWriter:
        def __init__(self, directory, purge_step):
            purged.append((directory, purge_step))

        def add_scalar(self, *scalar):
            scalars.append(scalar)

        def flush(self): ...

        def close(self): ...

    stand_in = types.ModuleType("tensorboardX")
    monkeypatch.setattr(stand_in, "SummaryWriter", SummaryWriter, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", stand_in)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate(after=7)
    log.write(row(8))
    log.close()
    assert scalars == [("train/loss", 1 / 8, 8)]
    assert purged == [(str(tmp_path / "tensorboard"), 8)]


DAMAGED = {
    "no JSON": b'{"step": 2, "spl',
    "not an object": b"[1, 2]",
    "no step": b'{"split": "train"}',
    "no split": b'{"step": 2}',
    "a word for a number": b'{"step": 2, "split": "train", "loss": "low"}',
    "not UTF-8": b'{"step": 2, "split": "train", "lo\xff": 1}',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_costs_no_other(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(row(step)).encode() for step in (1, 2, 3)]
    path.write_bytes(b"\n".join([lines[0], line, b"", *lines[1:]]) + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: expected a JSON object"):
        metrics_log.read(path)
    log = MetricsLog(path)
    (told,) = log.truncate(after=2)
    assert told == f"{path}:2: damaged, left out"
    log.close()
    assert metrics_log.read(path) == [row(1), row(2)]


def test_a_row_can_be_read_when_it_is_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.truncate(after=0) == []
    log.write(row(1))
    assert metrics_log.read(log.path) == [row(1)]
    log.close()
