"""A run directory as a training run of a two-class task would leave it."""

import json
from pathlib import Path

import numpy as np
import pytest

from kd.data.glue import SST2
from kd.report.page import write_page

NUM_DEV = 872
STEPS = 1000


@pytest.fixture
def summary() -> dict:
    return _summary()


def _summary() -> dict:
    return {
        "name": "sst2_sinkd",
        "seed": 0,
        "scale": "mini",
        "paper": {"key": "cui2024sinkd", "table": "1", "expected": 0.913},
        "data": {
            "source": "local",
            "origin": "local SST-2 (67,349 train, 872 dev)",
            "fingerprint": "9f1c2ab37d5e" * 5 + "ab01",
            "num_train": 67349,
            "num_dev": NUM_DEV,
            "final": "dev",
            "num_final": NUM_DEV,
        },
        "task": {"name": "SST-2"} | SST2.target.described(),
        "teacher": {
            "accuracy": 0.8314,
            "nll": 0.4121,
            "ece": 0.0412,
            "brier": 0.2433,
            "num_params": 4386178,
            "source": "its recipe, key 5d0b9c1e",
            "dev": 0.8314,
        },
        "student": {
            "accuracy": 0.8108,
            "nll": 0.4459,
            "ece": 0.0337,
            "brier": 0.2678,
            "num_params": 1097474,
            "best": {"metric": "accuracy", "value": 0.8142, "step": 800},
        },
        "fidelity": {"agreement": 0.9312, "kl": 0.0312, "total_variation": 0.0844},
        "speed": {
            "examples_per_second": 514.2,
            "steps": STEPS,
            "seconds_train": 62.3,
            "seconds_total": 121.9,
            "seconds_teacher": 40.1,
        },
        "versions": {"kd": "0.1.0", "jax": "0.10.2", "python": "3.11.7"},
        "device": {"platform": "cpu", "kind": "cpu", "num_cores": 2},
        "finished": "2026-11-21T10:02:44+00:00",
    }


@pytest.fixture
def run_directory(tmp_path: Path, summary: dict) -> Path:
    _write_run(tmp_path, summary)
    return tmp_path


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of that run; drawn once, as that takes a second."""
    directory = tmp_path_factory.mktemp("sst2_sinkd")
    _write_run(directory, _summary())
    return write_page(directory).read_text(encoding="utf-8")


def _write_run(directory: Path, summary: dict) -> None:
    random = np.random.default_rng(0)
    config = {
        "experiment": {
            "task": {"name": "sst2", "max_length": 64},
            "objective": {"ce": {"weight": 0.1}, "kl": {"weight": 0.9}},
            "optimizer": {"learning_rate": 1e-3, "warmup": 0.1},
        },
        "run": {"name": "sst2_sinkd", "seed": 0, "scale": "mini"},
    }
    _write_json(directory / "config.json", config)
    _write_json(directory / "summary.json", summary)
    lines = [json.dumps(row) for row in _metrics(random)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    labels = random.integers(2, size=NUM_DEV)
    margin = 1.5 * (2 * labels - 1) + random.normal(0, 1.7, NUM_DEV)
    teacher = _binary_logits(margin)
    student = _binary_logits(0.8 * margin + random.normal(0, 0.5, NUM_DEV))
    np.savez(
        directory / "predictions.npz",
        labels=labels,
        student_logits=student,
        teacher_logits=teacher,
    )
    p, q = _softmax(student[:64]), _softmax(teacher[:64])
    cost = np.abs(p[:, None] - q[None]).sum(axis=-1)
    np.savez(
        directory / "plan.npz",
        plan=_sinkhorn(cost, epsilon=0.05),
        cost=cost,
        student_probs=p,
        teacher_probs=q,
        labels=labels[:64],
    )


def _metrics(random: np.random.Generator):
    for step in range(5, STEPS + 1, 5):
        at = {"step": step, "epoch": step / 500}
        decay = np.exp(-step / 200)
        terms = {
            "loss/ce": 0.35 + 0.4 * decay + 0.06 * random.normal(),
            "loss/kl": (0.02 + 0.5 * decay) * np.exp(0.25 * random.normal()),
            "loss/sinkd": (0.008 + 0.5 * decay) * np.exp(0.2 * random.normal()),
        }
        weights = {"loss/ce": 0.1, "loss/kl": 0.9, "loss/sinkd": 0.8}
        yield at | {
            "split": "train",
            "examples": 32 * step,
            "loss": sum(weights[name] * terms[name] for name in terms),
            **terms,
            "grad_norm": float(np.exp(0.3 * random.normal())),
            "learning_rate": 1e-3 * min(step / 100, (1000 - step) / 900),
            "examples_per_second": 514 + 20 * random.normal(),
            "seconds": step / 16,
        }
        if step % 100 == 0:
            yield at | {
                "split": "dev",
                "accuracy": 0.81 - 0.3 * decay + 0.01 * random.normal(),
                "nll": 0.44 + 0.25 * decay,
                "agreement": 0.93 - 0.4 * decay + 0.01 * random.normal(),
                "kl": 0.03 + 0.4 * decay,
            }


def _binary_logits(margin: np.ndarray) -> np.ndarray:
    return np.stack((-margin / 2, margin / 2), axis=1).astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def _sinkhorn(cost: np.ndarray, *, epsilon: float) -> np.ndarray:
    kernel = np.exp(-cost / epsilon)
    for _ in range(20):
        kernel /= kernel.sum(axis=1, keepdims=True) * len(kernel)
        kernel /= kernel.sum(axis=0, keepdims=True) * len(kernel)
    return kernel


def _write_json(path: Path, tree: dict) -> None:
    path.write_text(json.dumps(tree))
