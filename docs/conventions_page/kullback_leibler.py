"""Conventions of forward and reverse KL."""

from functools import partial

from docs.conventions_page import published
from docs.conventions_page.comparison import (
    EVERYWHERE,
    EXAMPLES,
    TOKENS,
    Convention,
    Family,
)
from kd.divergences import KL, ReverseCrossEntropy, ReverseKL, SoftCrossEntropy

_FORWARD = "KL(q ‖ p)"
_REVERSE = "KL(p ‖ q)"
_PLAIN = {"temperature": 2.0, "temperature_squared": False}

FAMILIES = (
    Family(
        "Forward KL",
        "All at temperature 2 where the code has one.",
        (
            Convention(
                "mdistiller, KD", _FORWARD, "yes", EXAMPLES,
                partial(published.forward_kl, temperature=2.0, squared=True),
                KL(temperature=2.0),
            ),
            Convention(
                "torchdistill, `KDLoss` with labels", _FORWARD, "yes", EXAMPLES,
                partial(published.forward_kl, temperature=2.0, squared=True),
                KL(temperature=2.0),
            ),
            Convention(
                "torchdistill, `KDLoss` without `alpha` or labels",
                _FORWARD, "no", EXAMPLES,
                partial(published.forward_kl, temperature=2.0),
                KL(**_PLAIN),
                "the factor comes with the cross-entropy only",
            ),
            Convention(
                "DistillKit, `kl`", _FORWARD, "yes", TOKENS,
                partial(published.forward_kl, temperature=2.0, squared=True),
                KL(temperature=2.0),
                "its trainer masks by unshifted labels, one token off",
            ),
            Convention(
                "EasyDeL, distillation", _FORWARD, "yes", TOKENS,
                partial(published.forward_kl, temperature=2.0, squared=True),
                KL(temperature=2.0),
            ),
            Convention(
                "Tunix, `LogitStrategy`", _FORWARD, "yes", EVERYWHERE,
                partial(
                    published.forward_kl,
                    temperature=2.0, squared=True, positions="all",
                ),
                KL(temperature=2.0),
                "the mask is not applied",
                positions="all",
            ),
            Convention(
                "f-DISTILL, summarisation and chat", _FORWARD, "yes", TOKENS,
                partial(published.forward_kl, temperature=2.0, squared=True),
                KL(temperature=2.0),
            ),
            Convention(
                "f-DISTILL, DART and translation", _FORWARD, "no", TOKENS,
                partial(published.forward_kl, temperature=2.0),
                KL(**_PLAIN),
            ),
            Convention(
                "TRL, GKD with β = 0", _FORWARD, "no", TOKENS,
                partial(published.forward_kl, temperature=2.0),
                KL(**_PLAIN),
                "the trainer's `temperature` is that of sampling; its loss has 1",
            ),
            Convention(
                "ATKD, baseline", _FORWARD, "", TOKENS,
                published.forward_kl, KL(),
            ),
            Convention(
                "DistiLLM, `forward_kl`", "−Σ q log p", "", TOKENS,
                published.soft_cross_entropy, KL(),
                "same gradient; not 0 at p = q",
                entropy=1.0,
            ),
            Convention(
                "SinKD, `kd`", "−Σ q log p", "no", EXAMPLES,
                partial(published.soft_cross_entropy, temperature=2.0),
                SoftCrossEntropy(**_PLAIN),
            ),
            Convention(
                "SinKD, T0 scripts", "−Σ q log p", "", EVERYWHERE,
                partial(published.soft_cross_entropy, positions="all"),
                SoftCrossEntropy(),
                "the mask is not applied; weight 0.1",
                positions="all",
            ),
        ),
    ),
    Family(
        "Reverse KL",
        "",
        (
            Convention(
                "f-DISTILL, summarisation and chat", _REVERSE, "yes", TOKENS,
                partial(published.reverse_kl, temperature=2.0, squared=True),
                ReverseKL(temperature=2.0),
                "on the student's samples",
            ),
            Convention(
                "f-DISTILL, DART and translation", _REVERSE, "no", TOKENS,
                partial(published.reverse_kl, temperature=2.0),
                ReverseKL(**_PLAIN),
            ),
            Convention(
                "TRL, GKD with β = 1", _REVERSE, "no", TOKENS,
                partial(published.reverse_kl, temperature=2.0),
                ReverseKL(**_PLAIN),
            ),
            Convention(
                "SinKD, `RKL` for language models", "0.1 KL(p ‖ q)", "no", EXAMPLES,
                partial(published.reverse_kl, temperature=2.0, factor=0.1),
                0.1 * ReverseKL(**_PLAIN),
                "always temperature 2",
            ),
            Convention(
                "DistiLLM, `reverse_kl`", _REVERSE, "", TOKENS,
                published.reverse_kl, ReverseKL(),
            ),
            Convention(
                "ATKD, baseline", _REVERSE, "", TOKENS,
                published.reverse_kl, ReverseKL(),
            ),
            Convention(
                "f-DISTILL, `engine`", "−Σ p log q", "no", TOKENS,
                partial(published.reverse_cross_entropy, temperature=2.0),
                ReverseCrossEntropy(**_PLAIN),
                "DART: always temperature 1",
            ),
        ),
    ),
)  # fmt: skip
