"""The 1-Wasserstein distance of two samples, exactly."""

import numpy as np
from jaxtyping import Float


def wasserstein(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """The least mean Euclidean distance of a pairing of the rows of two samples.

        W_1 = min over permutations p of  1/n sum_i |x_i - y_p(i)|

    Equal masses make the optimal plan a permutation (Birkhoff), which is found without
    regularisation, so no epsilon has a say. Of samples of one distribution it is not 0
    but shrinks with n, slowly where d is large: compare it with that of two samples of
    one distribution.

    Args:
        x: n vectors.
        y: as many.

    Raises:
        ValueError: they are not as many, or there is none.
    """
    # It takes half a second to import.
    from scipy.optimize import linear_sum_assignment

    if x.shape != y.shape or not len(x):
        raise ValueError(
            f"expected as many vectors of one width, got {x.shape} and {y.shape}"
        )
    cost = _distances(x.astype(np.float64), y.astype(np.float64))
    return float(cost[linear_sum_assignment(cost)].mean())


def _distances(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    # Around their mean, so that nothing cancels that all vectors share.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    return np.sqrt(np.maximum(squares - 2 * x @ y.T, 0))
