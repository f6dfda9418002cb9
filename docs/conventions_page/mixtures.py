"""Conventions of divergences to, and of, mixtures."""

from functools import partial

from docs.conventions_page import published
from docs.conventions_page.comparison import (
    EXAMPLES,
    SEQUENCES,
    TOKENS,
    Convention,
    Family,
)
from kd.divergences import JS, AdaptiveKL, Jeffreys, SkewedKL, SkewedReverseKL

_JS = "β KL(q ‖ m) + (1 − β) KL(p ‖ m), m = βq + (1 − β)p"

FAMILIES = (
    Family(
        "Jensen-Shannon, the meaning of β",
        "With the code's own parameter at 0.1 and temperature 1. No two of TRL, "
        "f-DISTILL and EasyDeL agree, except at 1/2.",
        (
            Convention(
                "TRL, GKD", _JS, "no", TOKENS,
                partial(published.jensen_shannon, teacher=0.1, weight=0.1),
                JS(beta=0.1),
                "β = 0 and 1 are replaced by the two KLs, not the limits, which are 0",
            ),
            Convention(
                "Liger, fused linear JSD", _JS, "no", TOKENS,
                partial(published.jensen_shannon, teacher=0.1, weight=0.1),
                JS(beta=0.1),
                "ends as in TRL; padding counted until December 2025",
            ),
            Convention(
                "EasyDeL, GKD",
                "β KL(q ‖ m) + (1 − β) KL(p ‖ m), m = (1 − β)q + βp", "no", TOKENS,
                partial(published.jensen_shannon, teacher=0.9, weight=0.1),
                0.1 * SkewedKL(skew=0.9) + 0.9 * SkewedReverseKL(skew=0.1),
                "another function: the mixture is turned round, the weights are not; "
                "β = 0 is reverse KL, β = 1 forward KL",
            ),
            Convention(
                "DistiLLM, `js_distance`",
                "λ KL(p ‖ m) + (1 − λ) KL(q ‖ m), m = λp + (1 − λ)q", "", TOKENS,
                partial(published.jensen_shannon, teacher=0.9, weight=0.9),
                JS(beta=0.9),
                "λ is the student's share; 0.9 by default",
            ),
            Convention(
                "f-DISTILL, JS",
                "β KL(p ‖ m) + (1 − β) KL(q ‖ m), m = βp + (1 − β)q", "", TOKENS,
                partial(published.fdistill_js, beta=0.1),
                JS(beta=0.9),
                "β is the student's share, 0.85 or 0.25 in its scripts; first KL on "
                "the student's samples, second on the teacher's; T² as for KL",
            ),
            Convention(
                "DistiLLM-2, `gkd`",
                "α KL(q ‖ m) + (1 − α) KL(p ‖ m), m = αq + (1 − α)p", "", SEQUENCES,
                partial(
                    published.jensen_shannon, teacher=0.1, weight=0.1, sequences=True
                ),
                JS(beta=0.1),
                "α is 0.9 by default: the opposite of DistiLLM",
                positions="sequences",
            ),
            Convention(
                "SinKD, `JSKL` for language models",
                "0.025 Σ m (2 log m − p − q), m = (p + q)/2", "no", EXAMPLES,
                published.sinkd_js, None,
                "negative: probabilities where logarithms belong; always temperature 2",
            ),
            Convention(
                "ATKD, `jsd`", "0.9 KL(q ‖ p) + 0.1 KL(p ‖ q)", "", TOKENS,
                partial(published.mixed_kl, forward=0.9, reverse=0.1),
                Jeffreys(forward=0.9, reverse=0.1),
                "no mixture: not a JS divergence",
            ),
        ),
    ),
    Family(
        "Skewed, symmetric and adaptive KL",
        "λ = 0.1, temperature 1.",
        (
            Convention(
                "DistiLLM, `skewed_forward_kl`", "−Σ q log(λq + (1 − λ)p)", "", TOKENS,
                partial(published.skewed_forward, skew=0.1),
                SkewedKL(skew=0.1),
                "same gradient; not 0 at p = q",
                entropy=1.0,
            ),
            Convention(
                "DistiLLM, `skewed_reverse_kl`", "KL(p ‖ (1 − λ)q + λp)", "", TOKENS,
                partial(published.skewed_reverse, skew=0.1),
                SkewedReverseKL(skew=0.1),
                "gradient through p in the mixture too",
            ),
            Convention(
                "DistiLLM-2, teacher's responses", "KL(q ‖ λq + (1 − λ)p)", "",
                SEQUENCES,
                partial(published.skewed_forward_of_sequences, skew=0.1),
                SkewedKL(skew=0.1),
                positions="sequences",
            ),
            Convention(
                "DistiLLM-2, student's responses", "KL(p ‖ (1 − λ)q + λp)", "",
                SEQUENCES,
                partial(published.skewed_reverse_of_sequences, skew=0.1),
                SkewedReverseKL(skew=0.1, constant_mixture=True),
                "p in the mixture is detached",
                positions="sequences",
            ),
            Convention(
                "DistiLLM, `symmetric_kl`", "0.9 KL(p ‖ q) − 0.1 Σ q log p", "",
                TOKENS,
                partial(published.symmetric_without_entropy, student=0.9),
                Jeffreys(forward=0.1, reverse=0.9),
                "same gradient; not 0 at p = q",
                entropy=0.1,
            ),
            Convention(
                "AKL", "g KL(q ‖ p) + (1 − g) KL(p ‖ q)", "", TOKENS,
                partial(published.adaptive_kl, mass=0.5),
                AdaptiveKL(head_mass=0.5),
                "g, the head's share of Σ|p − q|, is detached; the class that crosses "
                "the mass 0.5 is of the tail",
            ),
            Convention(
                "DSKD, its AKL", "the same", "", TOKENS,
                partial(published.adaptive_kl, mass=0.5, crossing_in_head=True),
                None,
                "the crossing class is of the head",
            ),
        ),
    ),
)  # fmt: skip
