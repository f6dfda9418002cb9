"""Several tests at once: Holm's correction."""

import math
from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values such that calling those below alpha differences errs at most so often.

    In a share alpha of tables, at most, is any difference called that there is not:

        holm_(i) = max_{j <= i} min((m - j + 1) p_(j), 1)

    with p_(1) <= ... <= p_(m) sorted. NaN, a test that could not be made, stays NaN and
    does not count.

    Source: holm1979simple.
    """
    given = np.asarray(p_values, np.float64)
    order = [i for i in np.argsort(given) if not math.isnan(given[i])]
    factors = np.arange(len(order), 0, -1)
    corrected = given.copy()
    corrected[order] = np.maximum.accumulate(np.minimum(factors * given[order], 1.0))
    return corrected.tolist()
