"""What the battery of divergences tests: every loss, its definition, what it is like.

A new loss enters by one line in `LOSSES`.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import reference

from kd.divergences import (
    ATKD,
    DIST,
    DKD,
    JS,
    KL,
    AdaptiveKL,
    Alpha,
    BalancedKL,
    BatchCorrelation,
    ChiSquared,
    ClassCorrelation,
    ComparativeKL,
    ContinuationKD,
    Divergence,
    FDivergence,
    HardCrossEntropy,
    Hellinger,
    Jeffreys,
    LabelledDivergence,
    LogitMSE,
    OptimalTransport,
    RankCorrelation,
    Renyi,
    ReverseCrossEntropy,
    ReverseKL,
    SinKD,
    SinkhornDivergence,
    SkewedKL,
    SkewedReverseKL,
    SoftCrossEntropy,
    Standardized,
    TotalVariation,
    ValueCorrelation,
)
from kd.transport.ott_solvers import Converged


class Case(NamedTuple):
    loss: Divergence | LabelledDivergence
    definition: Callable
    """Of (student, teacher), and of the labels where the loss reads them."""
    infinite: str = ""
    """Whose ruling out a class that the other does not makes the loss infinite."""
    zero_at_equal: bool = True
    coupled: bool = False
    """Whether the value of a row depends on other rows."""
    ordered: bool = False
    """Whether it does on their order: then only a rotation leaves it unchanged."""
    sees_shifts: bool = False
    """Whether a number added to all logits of a row changes it."""
    holds: bool = False
    """Whether part of the student is held constant: `held` of the definition."""
    first_choice: bool = False
    """Whether no more is read of the teacher than which class is likeliest."""
    signed_rows: bool = False
    """Whether only the mean is known not to be negative."""

    @property
    def labelled(self):
        return isinstance(self.loss, LabelledDivergence)


def xlogx(t):
    return t * jnp.log(t)


def half_distance(t):
    return abs(t - 1) / 2


CONVERGED = Converged(threshold=1e-15, max_iters=200)

LOSSES = [
    Case(KL(), reference.kl, infinite="student"),
    Case(
        KL(temperature=2.0),
        lambda s, t: reference.kl(s, t, 2.0),
        infinite="student",
    ),
    Case(
        KL(temperature=3.0, temperature_squared=False),
        lambda s, t: reference.kl(s, t, 3.0) / 9,
        infinite="student",
    ),
    Case(
        ReverseKL(temperature=2.0),
        lambda s, t: reference.reverse_kl(s, t, 2.0),
        infinite="teacher",
    ),
    Case(Jeffreys(), reference.jeffreys, infinite="student teacher"),
    Case(
        Jeffreys(forward=0.0, reverse=0.9),
        lambda s, t: reference.jeffreys(s, t, 0.0, 0.9),
        infinite="teacher",
    ),
    Case(JS(temperature=2.0), lambda s, t: reference.js(s, t, 2.0)),
    Case(JS(beta=0.1), lambda s, t: reference.js(s, t, beta=0.1)),
    Case(SkewedKL(), lambda s, t: reference.skewed_kl(s, t, 0.1)),
    Case(
        SkewedReverseKL(skew=0.3), lambda s, t: reference.skewed_reverse_kl(s, t, 0.3)
    ),
    Case(
        SkewedReverseKL(constant_mixture=True),
        functools.partial(reference.skewed_reverse_kl, skew=0.1),
        holds=True,
    ),
    Case(
        SoftCrossEntropy(temperature=2.0),
        lambda s, t: reference.soft_cross_entropy(s, t, 2.0),
        infinite="student",
        zero_at_equal=False,
    ),
    Case(
        ReverseCrossEntropy(),
        reference.reverse_cross_entropy,
        infinite="teacher",
        zero_at_equal=False,
    ),
    Case(
        HardCrossEntropy(),
        reference.hard_cross_entropy,
        infinite="student",
        zero_at_equal=False,
        first_choice=True,
    ),
    Case(TotalVariation(), reference.total_variation),
    Case(Hellinger(), reference.hellinger),
    Case(ChiSquared(), reference.chi_squared, infinite="student"),
    Case(Alpha(alpha=0.3), lambda s, t: reference.alpha(s, t, 0.3)),
    Case(Alpha(alpha=3.0), lambda s, t: reference.alpha(s, t, 3.0), infinite="student"),
    Case(
        Alpha(alpha=-1.0), lambda s, t: reference.alpha(s, t, -1.0), infinite="teacher"
    ),
    Case(Renyi(), lambda s, t: reference.renyi(s, t, 0.5)),
    Case(Renyi(alpha=2.0), lambda s, t: reference.renyi(s, t, 2.0), infinite="student"),
    Case(
        FDivergence(generator=xlogx, at_zero=0.0, at_infinity=np.inf),
        reference.kl,
        infinite="student",
    ),
    Case(
        FDivergence(temperature=2.0, generator=half_distance),
        lambda s, t: 4 * reference.total_variation(s, t, 2.0),
    ),
    Case(AdaptiveKL(), reference.adaptive_kl, infinite="student teacher", holds=True),
    Case(
        BalancedKL(temperature=2.0),
        lambda s, t: reference.balanced_kl(s, t, 2.0),
        infinite="student teacher",
    ),
    Case(
        LogitMSE(amplitude=0.5),
        lambda s, t: reference.logit_mse(s, t, 0.5),
        infinite="student teacher",
        zero_at_equal=False,  # but where the student is half the teacher
        sees_shifts=True,
    ),
    Case(LogitMSE(), reference.logit_mse, "student teacher", sees_shifts=True),
    Case(ContinuationKD(), reference.continuation, "student teacher", sees_shifts=True),
    Case(
        ContinuationKD(amplitude=0.5, margin=5.0),  # some rows within, some not
        lambda s, t: reference.continuation(s, t, 0.5, 5.0),
        infinite="student teacher",
        zero_at_equal=False,
        sees_shifts=True,
    ),
    Case(
        Standardized(KL(temperature=2.0)),
        lambda s, t: reference.kl(
            reference.standardize(s), reference.standardize(t), 2.0
        ),
        infinite="student",
    ),
    Case(DKD(), reference.dkd, infinite="student"),
    Case(ATKD(), reference.atkd, infinite="student", coupled=True),
    Case(
        ATKD(alpha=0.6, reverse=True),
        functools.partial(reference.atkd, alpha=0.6, reverse=True),
        infinite="teacher",
        coupled=True,
    ),
    Case(ValueCorrelation(), reference.value_correlation, coupled=True),
    Case(RankCorrelation(), reference.rank_correlation),
    Case(
        DIST(temperature=2.0, intra=3.0),
        lambda s, t: reference.dist(s, t, 2.0, intra=3.0),
        coupled=True,
    ),
    Case(BatchCorrelation(), reference.batch_correlation, coupled=True),
    Case(ClassCorrelation(), reference.class_correlation, coupled=True),
    Case(ComparativeKL(), reference.comparative_kl, coupled=True, ordered=True),
    Case(SinKD(), reference.sinkd, coupled=True, zero_at_equal=False),
    Case(
        SinKD(epsilon=0.02, num_iters=50),  # small enough for the log domain
        lambda s, t: reference.sinkd(s, t, epsilon=0.02, num_iters=50),
        coupled=True,
        zero_at_equal=False,
    ),
    Case(
        SinKD(epsilon=0.05),  # as small as it may be without logarithms
        lambda s, t: reference.sinkd(s, t, epsilon=0.05),
        coupled=True,
        zero_at_equal=False,
    ),
    Case(
        SinKD(convention="faithful"),
        lambda s, t: 0.001 * len(s) * reference.sinkd(s, t),
        coupled=True,
        zero_at_equal=False,
    ),
    Case(
        SinkhornDivergence(),
        reference.sinkhorn_divergence,
        coupled=True,
        signed_rows=True,
    ),
    Case(
        OptimalTransport(epsilon=0.5, solver=CONVERGED, tau_student=0.8),
        functools.partial(reference.optimal_transport, epsilon=0.5, taus=(0.8, 1.0)),
        coupled=True,
        zero_at_equal=False,
        holds=True,
    ),
]


def named(loss):
    """The same in every process: without addresses of functions."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", str(loss))
