"""How sure a mean over seeds and examples is: both are samples, crossed.

A score of S trained networks on n examples varies for two reasons: other seeds give
other networks, and another dev split has other examples. Every network answers every
example, so its answers are a table x_se of seeds and examples, and

    x_se = mean + a_s + b_e + c_se

with random effects of the seed, the example, and both. The difference between two
methods, trained on the same seeds and asked about the same examples, is such a table as
well; what seeds and examples do to both methods alike is absent from it.

Here the examples stand in groups, so that scores that are no mean over examples, such
as F1 or a correlation, fit too: a group's entry is the jackknife's pseudo-value.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats

NUM_GROUPS = 50
"""That the examples of a split are dealt into."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, and how far it may be from what infinitely many seeds and examples give.

    Attributes:
        mean: over seeds, of the score of the whole split.
        standard_error: of the mean; NaN where it cannot be known, with a single seed.
        degrees_of_freedom: of that error, by Satterthwaite's approximation.
        num_seeds: that it rests on.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float
    num_seeds: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Ends of the interval that holds the true mean in a share `level` of cases.

        mean -+ t_{df, (1 + level) / 2} * standard_error; NaN with a single seed.
        """
        half = self._quantile((1 + level) / 2) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Of the hypothesis that the true mean is 0; two-sided. NaN with one seed."""
        if math.isnan(self.standard_error):
            return math.nan
        if self.standard_error == 0.0:
            return 1.0 if self.mean == 0.0 else 0.0
        t = abs(self.mean) / self.standard_error
        return float(2 * stats.t.sf(t, self.degrees_of_freedom))

    def smallest_difference(self, *, power: float = 0.8, alpha: float = 0.05) -> float:
        """The true mean at which the test finds a difference in a share `power`.

        The d at which a noncentral t variable with these degrees of freedom, centred
        on d / standard_error, lies beyond the two-sided critical value of `alpha` with
        probability `power`. NaN with a single seed.
        """
        if math.isnan(self.standard_error) or self.standard_error == 0.0:
            return self.standard_error
        df, critical = self.degrees_of_freedom, self._quantile(1 - alpha / 2)

        def misses(shift: float) -> float:
            return power - float(stats.nct.sf(critical, df, shift))

        # The far tail adds nothing that matters at any useful power.
        shift: Any = optimize.brentq(misses, 0.0, 10 * critical + 10)
        return shift * self.standard_error

    def _quantile(self, share: float) -> float:
        if math.isnan(self.standard_error):
            return math.nan
        return float(stats.t.ppf(share, self.degrees_of_freedom))


def smallest_difference(
    differences: Sequence[Estimate], *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The difference that a table of several is likely to find in a row like most.

    The median of every difference's own smallest, each tested at alpha / m, which is
    what Holm asks of the only true one among m. Not their mean: one method that is
    erratic over seeds takes nothing from what can be seen of the others.

    Returns:
        In the unit of the score; NaN where nothing can be told, with a single seed.
    """
    own = [
        found.smallest_difference(power=power, alpha=alpha / len(differences))
        for found in differences
    ]
    return float(np.median(own)) if own else math.nan


def estimate(
    scores: Float[np.ndarray, "s"], groups: Float[np.ndarray, "s g"]
) -> Estimate:
    """The mean of a score, and its error over seeds and examples together.

        V  = A + max(B - C, 0),      standard_error = sqrt(V)
        A  = var_s(scores) / S
        B  = var_g(mean_s groups) / G
        C  = sum_sg r_sg^2 / ((S - 1) (G - 1)) / (S G)
        df = V^2 / (A^2 / (S - 1) + B^2 / (G - 1) + C^2 / ((S - 1) (G - 1)))

    with r the residuals of `groups` after its row and column means. A holds the
    variance of seeds and of c_se; B that of examples and of c_se as well, which C takes
    away again: the estimate by mean squares for two crossed random effects. Where
    chance makes B less than C the examples count as adding nothing. df is at least that
    of the seeds or of the groups, whichever is smaller.

    A percentile interval of a bootstrap over seeds and examples, the "multi-bootstrap"
    of sellam2022multiberts, resamples the same two effects, but is too narrow with few
    seeds (a sample of five has four fifths of the variance, and no heavy tails) and
    counts c_se three times: `tests/compare/test_crossed.py` has both side by side.

    Args:
        scores: of every seed on the whole split, [s].
        groups: pseudo-values or means of every seed and group of examples, [s, g],
            g at least 2.

    Source: satterthwaite1946approximate; owen2007pigeonhole for crossed effects.
    """
    num_seeds, num_groups = groups.shape
    mean = float(scores.mean())
    if num_seeds < 2:
        return Estimate(mean, math.nan, math.nan, num_seeds)
    rows, columns = groups.mean(axis=1), groups.mean(axis=0)
    residuals = groups - rows[:, None] - columns + groups.mean()
    df_c = (num_seeds - 1) * (num_groups - 1)
    a = float(scores.var(ddof=1)) / num_seeds
    b = float(columns.var(ddof=1)) / num_groups
    c = float(np.square(residuals).sum()) / df_c / groups.size
    variance = a + max(b - c, 0.0)
    fewest = min(num_seeds, num_groups) - 1
    if variance == 0.0:
        return Estimate(mean, 0.0, fewest, num_seeds)
    parts = a**2 / (num_seeds - 1) + b**2 / (num_groups - 1) + c**2 / df_c
    df = max(variance**2 / parts, fewest)
    return Estimate(mean, math.sqrt(variance), df, num_seeds)


def deal(num_examples: int, num_groups: int = NUM_GROUPS) -> Int[np.ndarray, "n"]:
    """The group of every example: equally many in each, at random, always the same."""
    num_groups = max(min(num_groups, num_examples), 1)
    random = np.random.default_rng(0)
    return random.permutation(np.arange(num_examples) % num_groups)


def pseudo_values(
    score: Callable[[Int[np.ndarray, "m"]], float], groups: Int[np.ndarray, "n"]
) -> tuple[float, Float[np.ndarray, "g"]]:
    """A score of a whole split, and what each group of examples contributes.

        pseudo_g = G score(all) - (G - 1) score(all but group g)

    which is the mean over the group where the score is a mean over examples and the
    groups are equally large.

    Args:
        score: of the examples with these places in the split.
        groups: of every example, as `deal` gives them.

    Returns:
        The score of the whole split, and the pseudo-values, [g].

    Source: efron1982jackknife, with groups left out instead of single examples.
    """
    everything = np.arange(len(groups))
    whole, count = score(everything), int(groups.max()) + 1
    without = np.array([score(everything[groups != g]) for g in range(count)])
    return whole, count * whole - (count - 1) * without
