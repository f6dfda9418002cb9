"""Every number of the page of conventions, against this project and the codes."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kd.divergences
from docs import conventions_page
from docs.conventions_page import comparison, page, published
from docs.conventions_page.published import Pair
from kd.divergences import Divergence, LabelledDivergence

ROOT = pathlib.Path(__file__).parents[2]
CONVENTIONS = [c for family in conventions_page.FAMILIES for c in family.conventions]
every_convention = pytest.mark.parametrize("c", CONVENTIONS, ids=lambda c: c.code)


@pytest.mark.slow
def test_committed_page_is_the_generated_one():
    committed = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert committed == page.page(), "write it anew: make docs"


def test_every_divergence_is_on_the_page():
    public = {
        member
        for _, member in inspect.getmembers(kd.divergences, inspect.isclass)
        if issubclass(member, Divergence | LabelledDivergence)
        and not inspect.isabstract(member)
    }
    assert {type(loss) for loss in page.LOSSES} == public


def value_and_gradient(function, pair):
    """Both with respect to the student's logits, written out as arrays."""

    def of_student(student):
        return function(pair._replace(student=student))

    value, gradient = jax.jit(jax.value_and_grad(of_student))(pair.student)
    return float(value), np.asarray(gradient)


@every_convention
def test_equals_what_the_page_says(c, x64):
    pair = comparison.fixed_pair()
    value, gradient = value_and_gradient(c.computes, pair)
    if c.here is None:
        return
    ours, our_gradient = value_and_gradient(
        functools.partial(comparison.value_here, c), pair
    )
    # The code of f-DISTILL adds 1e-10 to a mixture.
    np.testing.assert_allclose(value, ours, rtol=1e-7)
    np.testing.assert_allclose(gradient, our_gradient, rtol=1e-6, atol=1e-9)
    if c.positions != "counted":
        counted = c._replace(positions="counted")
        unlike, _ = value_and_gradient(
            functools.partial(comparison.value_here, counted), pair
        )
        assert unlike != pytest.approx(ours, rel=1e-3), "the mask would be no matter"


@pytest.mark.slow
def test_notes_are_true(x64):
    pair = comparison.fixed_pair()
    same = pair._replace(teacher=pair.student)
    found = {c.code: c for c in CONVENTIONS}

    def value(code, pair=pair):
        return value_and_gradient(found[code].computes, pair)[0]

    for c in CONVENTIONS:
        if "not 0 at p = q" in c.note:
            assert value(c.code, same) > 0.01
    assert value("SinKD, `JSKL` for language models") < 0
    _, gradient = value_and_gradient(found["R2KD, rank loss"].computes, pair)
    assert not gradient.any()
    assert value("DSKD, its AKL") != pytest.approx(value("AKL"), rel=1e-3)
    # The limits of EasyDeL's beta are those of TRL's, exchanged; TRL's own are 0.
    js = published.jensen_shannon
    turned = float(js(pair, teacher=1 - 1e-9, weight=1e-9))
    assert turned == pytest.approx(value("DistiLLM, `reverse_kl`"), rel=1e-6)
    assert js(pair, teacher=1e-9, weight=1e-9) < 1e-8
    half = float(js(pair, teacher=0.5, weight=0.5))
    assert float(published.fdistill_js(pair, beta=0.5)) == pytest.approx(half, 1e-8)
    # Grows with the batch, twice as large.
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), pair)
    for code, factor in (
        ("SinKD, sample-wise ablation", 2),
        ("SinKD, GLUE", 2),
        ("mdistiller, MLKD, batch level", 2),
        ("mdistiller, MLKD, class level", 4),
    ):
        assert value(code, twice) == pytest.approx(factor * value(code), rel=1e-6)


# --- the codes' own values ---


@functools.cache
def archive(name):
    return dict(np.load(ROOT / "tests" / "golden" / f"{name}.npz"))


def check(golden, case, function, *, counted=None, labels=None, tolerance=1e-8):
    """The formula against the loss and the gradient that the code gave."""
    student, teacher = golden["student_logits"], golden["teacher_logits"]
    if student.ndim == 2:
        student, teacher = student[None], teacher[None]
    shape = student.shape[:2]
    if student.dtype == np.float32:
        tolerance = 1e-5
    pair = Pair(
        jnp.asarray(student),
        jnp.asarray(teacher),
        np.ones(shape, bool) if counted is None else counted,
        np.zeros(shape, int) if labels is None else labels.reshape(shape),
    )
    value, gradient = value_and_gradient(function, pair)
    np.testing.assert_allclose(value, golden[f"{case}loss"], rtol=tolerance)
    if f"{case}grad_student_logits" in golden:
        expected = golden[f"{case}grad_student_logits"]
        np.testing.assert_allclose(
            gradient.reshape(expected.shape),
            expected,
            rtol=tolerance,
            atol=tolerance * np.abs(expected).max(),
        )


def with_(function, **settings):
    return functools.partial(function, **settings)


def test_values_of_distillm(x64):
    golden = archive("distillm_losses")
    counted = golden["label"] != -100
    for case, function in {
        "forward_kl": published.soft_cross_entropy,
        "reverse_kl": published.reverse_kl,
        "tv_distance": published.total_variation,
        "symmetric_kl_lam0.9": with_(published.symmetric_without_entropy, student=0.9),
        "js_distance_lam0.9": with_(published.jensen_shannon, teacher=0.1, weight=0.1),
        "skewed_forward_kl_lam0.1": with_(published.skewed_forward, skew=0.1),
        "skewed_reverse_kl_lam0.1": with_(published.skewed_reverse, skew=0.1),
    }.items():
        check(golden, f"{case}/", function, counted=counted)


def test_values_of_distillm2(x64):
    golden = archive("distillm2_losses")
    # Predictions are one token before what they predict. The teacher's responses come
    # first, then the student's.
    counted = np.zeros_like(golden["label"], dtype=bool)
    counted[:, :-1] = golden["label"][:, 1:] != -100

    def halves(first, second):
        def total(pair):
            return sum(
                function(Pair(*(x[rows] for x in pair)))
                for function, rows in ((first, slice(2)), (second, slice(2, 4)))
            )

        return total

    reverse = with_(published.skewed_reverse_of_sequences, skew=0.1)
    forward = with_(published.skewed_forward_of_sequences, skew=0.1)
    gkd = with_(published.jensen_shannon, teacher=0.9, weight=0.9, sequences=True)
    for case, function in {
        "distillm_v1": halves(reverse, reverse),
        "distillm_v2": halves(forward, reverse),
        "gkd": halves(gkd, gkd),
    }.items():
        named = golden | {f"{case}/loss": golden[f"{case}/total_loss"]}
        check(named, f"{case}/", function, counted=counted)


@pytest.mark.parametrize("task", ["summa", "dart"])
def test_values_of_fdistill(task, x64):
    golden = archive(f"fdistill_{task}")
    squared = task == "summa"
    softened = {"temperature": 2.0, "squared": squared}
    used = 2.0 if squared else 1.0
    for case, function in {
        "kl": with_(published.forward_kl, **softened),
        "rkl": with_(published.reverse_kl, **softened),
        "tvd_one_side": with_(
            published.total_variation, temperature=used, squared=squared
        ),
        "engine": with_(published.reverse_cross_entropy, temperature=used),
    }.items():
        check(golden, f"T2.0/{case}/", function, counted=golden["mask"])
    # Both sides on the same samples.
    sides = [f"T2.0/js_{side}_side_beta0.85/" for side in ("student", "teacher")]
    both = {
        name: 0.85 * golden[sides[0] + name] + 0.15 * golden[sides[1] + name]
        for name in ("loss", "grad_student_logits")
    }
    js = with_(published.fdistill_js, beta=0.85, **softened)
    check(golden | both, "", js, counted=golden["mask"])


def test_values_of_trl(x64):
    golden = archive("gkd_trl")
    at = {"temperature": 0.9}
    for beta, function in {
        0.0: with_(published.forward_kl, **at),
        0.1: with_(published.jensen_shannon, teacher=0.1, weight=0.1, **at),
        1.0: with_(published.reverse_kl, **at),
    }.items():
        counted = golden["labels"] != -100
        check(golden, f"beta{beta}_T0.9/", function, counted=counted)


def test_values_of_atkd_and_akl(x64):
    golden = archive("atkd")
    counted = np.zeros_like(golden["padding_mask"])
    counted[:, :-1] = ~golden["padding_mask"][:, 1:]
    labels = np.roll(golden["target"], -1, axis=1)
    for case, function in {
        "atkd_vanilla_alpha0.2": with_(published.atkd, alpha=0.2),
        "atkd_reverse_alpha0.2": with_(published.atkd, alpha=0.2, reverse=True),
        "forward_kl": published.forward_kl,
        "reverse_kl": published.reverse_kl,
    }.items():
        check(golden, f"{case}/", function, counted=counted, labels=labels)
    padding = np.zeros_like(counted)
    padding[:, :-1] = golden["padding_mask"][:, 1:]
    case = "tvd_on_PADDED_positions_bug/"
    check(golden, case, published.total_variation, counted=padding)
    golden = archive("akl")
    for mass in (0.5, 0.7):
        function = with_(published.adaptive_kl, mass=mass)
        check(golden, f"mu{mass}/", function, counted=golden["mask"] > 0)


def test_values_of_image_classifiers(x64):
    golden = archive("r2kd")
    value_loss = with_(published.value_correlation, temperature=4.0)
    check(golden, "value_loss_T4_w2/", value_loss)
    check(golden, "rank_loss_T4_w2/", published.rank_correlation)
    golden = archive("classic_baselines")
    for case, function in {
        "kd_T4": with_(published.forward_kl, temperature=4.0, squared=True),
        "dkd_a1_b8_T4": with_(published.dkd, alpha=1.0, beta=8.0, temperature=4.0),
        "dist_b1_g1_tau1.0": with_(published.dist, temperature=1.0),
        "mlkd_bc_T4": with_(published.gram, of="rows", temperature=4.0),
        "mlkd_cc_T4": with_(published.gram, of="classes", temperature=4.0),
    }.items():
        check(golden, f"{case}/", function, labels=golden["labels"])


@pytest.mark.slow
def test_values_of_sinkd(x64):
    golden = archive("sinkd_batchwise_glue")
    for case in ("b16c3/", "b8c10/"):
        renamed = {name[len(case) :]: x for name, x in golden.items() if case in name}
        check(renamed, "", with_(published.sinkhorn, scale=0.001))
    check(archive("sinkd_samplewise_removed"), "", published.sinkd_samplewise)
    golden = archive("sinkd_gptneo_2d")
    check(golden, "", with_(published.sinkhorn, scale=0.0008))
    renamed = {name.replace("KL_", "KL/"): x for name, x in golden.items()}
    reverse = with_(published.reverse_kl, temperature=2.0, factor=0.1)
    check(renamed, "RKL/", reverse)
    check(renamed, "JSKL/", published.sinkd_js)
    golden = archive("sinkd_glue_total")
    soft = with_(published.soft_cross_entropy, temperature=3.0)
    kd = {"loss": golden["kd_a0.8_b0.8_T3.0/kd"]}
    logits = {name: golden[name] for name in ("student_logits", "teacher_logits")}
    check(logits | kd, "", soft)
    regression = {
        f"{side}_logits": golden[f"regression_T3/{side}"]
        for side in ("student", "teacher")
    }
    regression |= {
        "loss": golden["regression_T3/kd"],
        "grad_student_logits": golden["regression_T3/grad_student"],
    }
    check(regression, "", with_(published.logit_mse, temperature=3.0))
