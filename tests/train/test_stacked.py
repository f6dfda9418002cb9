"""Several runs as one: where they are, and what they have to do with each other."""

import re

import jax
import numpy as np
import pytest

from kd.divergences import KL, SinKD
from kd.models.bert import Bert
from kd.models.mlp import MLP
from kd.objective import CrossEntropy
from kd.procedures.offline import Offline
from kd.procedures.procedure import Setting
from kd.train import stacked
from kd.train.mesh import data_mesh, shard_batch
from kd.train.optimizer import AdamW


@pytest.mark.parametrize(
    ("num", "devices"), [(1, 4), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4)]
)
def test_seeds_are_divided_over_devices_evenly(num, devices):
    assert stacked.mesh_of(num, data_mesh(jax.devices()[:4])).size == devices


def random_batch(num_seeds, num_rows=8):
    random = np.random.default_rng(0)
    lead = (num_seeds, num_rows)
    return {
        "inputs": random.normal(size=(*lead, 6)).astype(np.float32),
        "tokens": random.integers(0, 20, (*lead, 5), dtype=np.int32),
        "token_mask": random.integers(0, 2, (*lead, 5)) > 0,
        "width": np.full(lead, 4, np.int32),
        "labels": random.integers(0, 3, lead, dtype=np.int32),
        "mask": np.ones(lead, bool),
        "teacher_logits": random.normal(size=(*lead, 3)).astype(np.float32),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        MLP(widths=(8,), dropout=0.2),
        Bert(
            vocab_size=20, num_layers=1, width=8, num_heads=2, mlp_width=16,
            max_length=8,
        ),
    ],
    ids=["mlp", "bert"],
)  # fmt: skip
def test_devices_have_nothing_to_say_to_each_other(network):
    num_seeds, mesh = 4, data_mesh(jax.devices()[:2])
    model = network.build(3)
    setting = Setting(
        learners={"student": model},
        teachers=(None,),
        objective=CrossEntropy() + 0.9 * KL(temperature=2.0) + 0.8 * SinKD(),
        optimizer=AdamW(weight_decay=0.1, warmup=0.1).build(10),
        num_microbatches=2,
    )
    batch = random_batch(num_seeds)
    one = jax.tree.map(lambda x: jax.numpy.asarray(x[0]), batch)
    training = stacked.vmapped(Offline().build(setting), num_seeds, mesh)

    def begun(seed):
        key = jax.random.key(seed)
        return training.init(key, {"student": model.init(key, one)}, (), one)

    state = stacked.stack([begun(seed) for seed in range(num_seeds)], mesh)
    placed = shard_batch(batch, mesh)
    compiled = training.step.lower(state, (), placed).compile()  # pyrefly: ignore[missing-attribute]
    talk = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    assert not re.findall(talk, compiled.as_text())
    after, metrics = training.step(state, (), placed)
    for leaf in jax.tree.leaves((after.params, after.opt_state, metrics)):
        assert leaf.shape[0] == num_seeds
        assert [s.data.shape[0] for s in leaf.addressable_shards] == [2, 2]
    assert after.step == 1
