"""Conventions of the other losses of predictions and logits."""

from functools import partial

from docs.conventions_page import published
from docs.conventions_page.comparison import (
    COUNTED,
    EXAMPLES,
    TOKENS,
    Convention,
    Family,
)
from kd.divergences import (
    ATKD,
    DIST,
    DKD,
    BatchCorrelation,
    ClassCorrelation,
    LogitMSE,
    SinKD,
    TotalVariation,
    ValueCorrelation,
)

FAMILIES = (
    Family(
        "Total variation",
        "At temperature 2 where the code has one.",
        (
            Convention(
                "f-DISTILL, summarisation and chat", "½ Σ |p − q|", "yes", TOKENS,
                partial(published.total_variation, temperature=2.0, squared=True),
                4.0 * TotalVariation(temperature=2.0),
                "a half of it on the samples of either side",
            ),
            Convention(
                "f-DISTILL, DART", "½ Σ |p − q|", "", TOKENS,
                published.total_variation, TotalVariation(),
                "the temperature is ignored",
            ),
            Convention(
                "DistiLLM, `tv_distance`", "½ Σ |p − q|", "", TOKENS,
                published.total_variation, TotalVariation(),
            ),
            Convention(
                "Liger, `tvd`", "½ Σ |p − q|", "", TOKENS,
                published.total_variation, TotalVariation(),
                "takes probabilities; `batchmean`",
            ),
            Convention(
                "ATKD, `get_tvd`", "½ Σ |p − q|", "", "padding only",
                partial(published.total_variation, positions="padding"),
                TotalVariation(),
                "the mask is the wrong way round",
                positions="padding",
            ),
            Convention(
                "SinKD, sample-wise ablation", "0.001 Σ |p − q|", "",
                "sum over examples",
                published.sinkd_samplewise,
                0.002 * sum(map(sum, COUNTED)) * TotalVariation(),
                "total variation, not transport between classes; grows with the batch",
            ),
        ),
    ),
    Family(
        "Target and non-target classes",
        "TCKD is the KL of the target class against all others together, NCKD that "
        "among the others, renormalised.",
        (
            Convention(
                "mdistiller, DKD", "TCKD + 8 NCKD", "yes", EXAMPLES,
                partial(published.dkd, alpha=1.0, beta=8.0, temperature=4.0),
                DKD(),
                "temperature 4; the target's logit less 1000, not left out; warmed up "
                "over 20 epochs",
            ),
            Convention(
                "ATKD", "easy: 0.2 NCKD; hard: 0.8 (TCKD + NCKD)", "",
                "easy and hard tokens apart",
                partial(published.atkd, alpha=0.2),
                ATKD(),
                "hard: teacher's 1 − q of the target at least the batch's lower median",
            ),
            Convention(
                "ATKD, reverse", "the same with p and q exchanged", "",
                "easy and hard tokens apart",
                partial(published.atkd, alpha=0.2, reverse=True),
                ATKD(reverse=True),
                "what is hard is still told by the teacher",
            ),
        ),
    ),
    Family(
        "Relations within a batch",
        "Temperature 4 but where said.",
        (
            Convention(
                "R2KD, value loss", "2 (2 − mean |cos rows| − mean |cos columns|)",
                "yes", EXAMPLES,
                partial(published.value_correlation, temperature=4.0),
                2.0 * ValueCorrelation(),
            ),
            Convention(
                "R2KD, rank loss", "2 (1 − Spearman)", "no", EXAMPLES,
                published.rank_correlation, None,
                "ranks by `argsort`: no gradient, it trains nothing",
            ),
            Convention(
                "DIST", "2 − mean Pearson of rows − mean Pearson of columns",
                "yes", EXAMPLES,
                partial(published.dist, temperature=1.0),
                DIST(),
                "temperature 1",
            ),
            Convention(
                "mdistiller, MLKD, batch level", "‖PP′ − QQ′‖² / b", "no", "sum",
                partial(published.gram, of="rows", temperature=4.0),
                BatchCorrelation(),
                "grows with the batch",
            ),
            Convention(
                "mdistiller, MLKD, class level", "‖P′P − Q′Q‖² / v", "no", "sum",
                partial(published.gram, of="classes", temperature=4.0),
                ClassCorrelation(),
                "grows with the square of the batch",
            ),
        ),
    ),
    Family(
        "Transport",
        "",
        (
            Convention(
                "SinKD, GLUE", "0.001 Σ P C, C the L1 distances, columns of P sum to 1",
                "no", "sum over the batch",
                partial(published.sinkhorn, scale=0.001),
                SinKD(convention="faithful"),
                "temperature 2 whatever is asked for, ε 0.1, 20 iterations, gradient "
                "through all of them; total mass b: grows with the batch",
            ),
            Convention(
                "SinKD, GPT-Neo script's class", "0.0008 Σ P C", "no",
                "sum over the batch",
                partial(published.sinkhorn, scale=0.0008),
                0.8 * SinKD(convention="faithful"),
                "the script itself does not use it",
            ),
        ),
    ),
    Family(
        "Logits",
        "",
        (
            Convention(
                "SinKD, regression", "mean (s/T − t/T)²", "no", "examples and classes",
                partial(published.logit_mse, temperature=3.0),
                1 / 9 * LogitMSE(),
                "temperature 3 here",
            ),
            Convention(
                "Annealing-KD, first phase", "mean (s − φt)²", "",
                "examples and classes",
                partial(published.logit_mse, amplitude=0.5),
                LogitMSE(amplitude=0.5),
                "φ grows in steps to 1; 0.5 here",
            ),
        ),
    ),
)  # fmt: skip
