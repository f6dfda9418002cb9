"""What is kept of a prediction: how exact it is, and how large."""

import jax.numpy as jnp
import numpy as np
import pytest

from kd.divergences import KL, LogitMSE, PerToken, SinKD, SkewedKL
from kd.networks.kept import Dense, HiddenAndHead, TopK, keep_in
from kd.networks.kept.ask import is_storable
from kd.networks.kept.top_k import packed, unpacked
from kd.objective import CrossEntropy
from kd.types import Head, Outputs


def logits(*shape, scale=3.0):
    random = np.random.default_rng(0)
    return jnp.asarray(scale * random.normal(size=shape), jnp.float32)


def top_of(keep, arrays):
    top = keep.outputs(arrays, ()).top
    assert top is not None
    return top


def bytes_per_prediction(keep, outputs):
    arrays = keep.arrays(outputs)
    predictions = outputs.logits.shape[0] * outputs.logits.shape[1]
    return sum(x.nbytes for x in arrays.values()) / predictions


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 3, 8, 61])
def test_packed_numbers_come_back(bits, k):
    numbers = jnp.asarray(np.random.default_rng(k).integers(2**bits, size=(2, 3, k)))
    stored = packed(numbers, bits)
    assert stored.dtype == jnp.uint8 and stored.shape == (2, 3, bits, -(-k // 8))
    np.testing.assert_array_equal(unpacked(stored, k), numbers)


@pytest.mark.parametrize("num_classes", [11, 65_536, 65_537, 200_000])
def test_ids_and_values_are_those_of_the_largest(num_classes):
    t = np.asarray(logits(3, 2, num_classes))
    keep = TopK(k=8, temperatures=(1.0, 2.0))
    arrays = keep.arrays(Outputs(jnp.asarray(t)))
    assert ("high_ids" in arrays) == (num_classes > 65_536)
    top = top_of(keep, arrays)
    order = np.argsort(-t, axis=-1, kind="stable")
    np.testing.assert_array_equal(top.ids, order[..., :8])
    sorted_ = np.take_along_axis(t, order, -1).astype(np.float64)
    gaps = sorted_ - sorted_[..., :1]
    np.testing.assert_allclose(top.values, gaps[..., :8], rtol=2**-11, atol=2**-25)
    for i, tau in enumerate(keep.temperatures):
        tail = tau * np.log(np.exp(gaps[..., 8:] / tau).sum(-1))
        np.testing.assert_allclose(top.tails[..., i], tail, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_error_of_a_log_probability_is_bounded(scale):
    taus = (0.5, 1.0, 4.0)
    keep = TopK(k=32, temperatures=taus)
    live = Outputs(logits(50, 4, 500, scale=scale))
    told = keep.outputs(keep.arrays(live), ())
    errors = keep.errors(live, told)
    gaps = np.sort(np.asarray(live.logits, np.float64))[..., ::-1]
    gap = (gaps[..., :1] - gaps[..., 31:32])[..., 0]
    for i, tau in enumerate(taus):
        found = np.asarray(errors["log_probability_error"][..., i])
        bound = 2 * (2**-11 * gap + 2**-25) / tau
        assert (found <= bound + 1e-5 * (1 + gap / tau)).all()
        assert found.max() > 0
        z = np.asarray(live.logits, np.float64) / tau
        q = np.sort(np.exp(z) / np.exp(z).sum(-1, keepdims=True))[..., ::-1]
        np.testing.assert_allclose(
            errors["mass_outside"][..., i], q[..., 32:].sum(-1), rtol=1e-3, atol=1e-6
        )


def test_extreme_and_impossible_logits():
    t = jnp.asarray([[[1e6, 0.0, -1e6, -jnp.inf, -jnp.inf]], [[-jnp.inf] * 5]])
    keep = TopK(k=4, temperatures=(1.0,))
    top = top_of(keep, keep.arrays(Outputs(t)))
    np.testing.assert_array_equal(
        top.values[0, 0], np.array([0, -65504, -65504, -np.inf], np.float16)
    )
    assert top.tails[0, 0, 0] == -jnp.inf
    assert not jnp.isnan(top.values).any() and not jnp.isnan(top.tails).any()


def test_bytes_of_a_prediction():
    """Of a vocabulary of 49,152 and a width of 576, as `SmolLM2-135M` has them."""
    outputs = Outputs(
        logits(1, 2, 49_152), head=Head(logits(1, 2, 576), jnp.zeros((576, 49_152)))
    )
    for k, expected in ((32, 132), (64, 260), (256, 1028)):
        found = bytes_per_prediction(TopK(k=k, temperatures=(1.0,)), outputs)
        assert found == expected == 4 * k + 4
    assert bytes_per_prediction(HiddenAndHead(), outputs) == 2 * 576
    large = Outputs(logits(1, 2, 151_936))  # 18 bits
    found = bytes_per_prediction(TopK(k=64, temperatures=(1.0, 2.0)), large)
    assert found == 64 * 4 + 64 * 2 / 8 + 8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_logits_are_made_of_hidden_states(dtype):
    random = np.random.default_rng(0)
    head = Head(
        jnp.asarray(random.normal(size=(3, 4, 6)), jnp.float32),
        jnp.asarray(random.normal(size=(6, 13)), jnp.float32),
        jnp.asarray(random.normal(size=13), jnp.float32),
        scale=0.5, cap=4.0, num_classes=11,
    )  # fmt: skip
    live, keep = head.outputs(), HiddenAndHead(dtype=dtype)
    told = keep.outputs(keep.arrays(live), keep.shared(live))
    assert told.head is not None and told.head.kernel is head.kernel
    assert told.logits.shape == (3, 4, 11)
    tolerance = {"float16": 3e-3, "bfloat16": 3e-2, "float32": 0}[dtype]
    np.testing.assert_allclose(told.logits, live.logits, atol=tolerance)
    errors = keep.errors(live, told)["log_probability_error"]
    assert errors.shape == (3, 4, 1) and (errors <= 2 * tolerance).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "uint16"])
def test_numbers_beyond_a_dtype_are_found(dtype):
    values = jnp.asarray([[0.0, -2.0], [1e5, 3.0]])
    hidden = np.asarray(values.astype(dtype))
    assert is_storable(hidden, ruled_out=False) == (dtype != "float16")
    if dtype != "uint16":
        assert is_storable(-hidden, ruled_out=False) == (dtype != "float16")


def test_what_is_ruled_out_is_told_from_what_is_lost():
    ruled_out = np.array([1.0, -np.inf], np.float16)
    assert is_storable(ruled_out, ruled_out=True)
    assert not is_storable(ruled_out, ruled_out=False)
    for wrong in (np.inf, np.nan):
        assert not is_storable(np.array([wrong], np.float16), ruled_out=True)
    assert "hidden" not in HiddenAndHead.rules_out
    assert {"values", "tails"} == TopK.rules_out


def test_what_a_person_says_is_kept():
    assert keep_in("dense") == Dense() and keep_in("hidden") == HiddenAndHead()
    assert keep_in("12") == TopK(k=12)
    for text in ("top", "-3", "1.5", ""):
        with pytest.raises(ValueError, match="expected dense, hidden"):
            keep_in(text)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        keep_in("0")
    with pytest.raises(ValueError, match="temperatures must be positive"):
        TopK(temperatures=(1.0, 0.0))


def test_temperatures_are_those_of_the_losses():
    losses = [PerToken(KL(temperature=2.0)), CrossEntropy(), PerToken(SkewedKL())]
    assert TopK().for_losses(losses).temperatures == (1.0, 2.0)
    fixed = TopK(temperatures=(2.0,))
    assert fixed.for_losses(losses) == fixed
    assert [*TopK().problems(losses, 1)] == []
    (problem,) = fixed.problems(losses, 1)
    assert problem == "keep.temperatures=2 lacks 1, that of skl"


def test_what_cannot_be_learnt_from_the_largest_logits():
    problems = [*TopK(k=9).problems([LogitMSE(), KL(), SinKD()], 2)]
    assert len(problems) == 3 and "of each of 2 teachers" in problems[0]
    for problem, name in zip(problems[1:], ("logit_mse", "sinkd"), strict=True):
        assert problem.startswith(f"{name} needs the logits of all classes")
        assert "set keep=hidden, keep=dense or answers=live" in problem
    assert [*HiddenAndHead().problems([LogitMSE(), SinKD()], 2)] == []
    few = Outputs(jnp.zeros((1, 2, 5)))
    assert "so k is at most 4; keep=dense" in TopK(k=5).problem(few)
    assert TopK(k=4).problem(few) == ""
    assert "does not give its head" in HiddenAndHead().problem(few)
