"""Generalization bounds of a linear network on two Gaussians, in closed form.

    Y = 1 or -1, each half the time;  X given Y ~ N(Y mu, s^2 I)
    T_l = A_l X,  A_l = W_l ... W_1,  A_0 = I

What the weights know of the n training examples is at most their average

    a = 1/n sum_i Y_i X_i  ~  N(mu, s^2/n I)

as those of the best linear classifier do. Then a layer sees a training example and a
new one, each turned by its label, as

    Y_i T_l,i given a ~ N(A_l a, (1 - 1/n) S_l),   Y T_l ~ N(A_l mu, S_l)
    S_l = s^2 A_l A_l^T, of rank r_l

and the label itself tells nothing more. So the distances between training and test
distributions of every layer, and with them the two hierarchical bounds, are formulas.

Source: he2024information, whose analytic case this is. The constants are derived here
from its setting, not copied.
"""

import dataclasses
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearGaussian:
    """The data, their number, and the network; L layers, counted from 0, the input.

    Attributes:
        mean: mu, of X where Y = 1.
        deviation: s, of every coordinate of X around its mean.
        num_examples: n, at least 2.
        weights: W_1, ..., W_L, each [outputs, inputs].

    Raises:
        ValueError: a number is out of range, or the matrices do not follow each other.
    """

    mean: Float[np.ndarray, "d"]
    deviation: float
    num_examples: int
    weights: tuple[Float[np.ndarray, "_ _"], ...]

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"deviation must be positive, got {self.deviation}")
        if self.num_examples < 2:
            raise ValueError(
                f"num_examples must be at least 2, got {self.num_examples}"
            )
        width = len(self.mean)
        for i, matrix in enumerate(self.weights, start=1):
            if matrix.shape[1] != width:
                raise ValueError(
                    f"W_{i} takes {matrix.shape[1]} inputs, and layer {i - 1} has "
                    f"{width} outputs"
                )
            width = matrix.shape[0]

    @cached_property
    def maps(self) -> tuple[Float[np.ndarray, "_ d"], ...]:
        """A_0, ..., A_L."""
        found = [np.eye(len(self.mean))]
        for matrix in self.weights:
            found.append(matrix @ found[-1])
        return tuple(found)

    @cached_property
    def ranks(self) -> Int[np.ndarray, "l"]:
        """r_l of every layer; never more than that of the layer before."""
        return np.array([np.linalg.matrix_rank(a) for a in self.maps])

    @property
    def tails(self) -> Float[np.ndarray, "l"]:
        """max(1, prod_{j > l} |W_j|), the product of the spectral norms that follow.

        How much a Lipschitz loss of output and label may grow with a change of layer l
        and label; the 1 is the label's.
        """
        norms = [np.linalg.norm(matrix, 2) for matrix in self.weights]
        products = [float(np.prod(norms[i:])) for i in range(len(norms) + 1)]
        return np.maximum(products, 1)

    def kl(self, average: Float[np.ndarray, "d"]) -> Float[np.ndarray, "l"]:
        """Divergence of a training example from a new one, given the average.

            KL_l = 1/2 (-r_l log(1 - 1/n) - r_l/n + e_l^T S_l^+ e_l)
            e_l = A_l (a - mu)

        Returns:
            Of (T_l,i, Y_i) from (T_l, Y), nats, of every layer. It falls with l,
            whatever the matrices are made from.
        """
        n, shift = self.num_examples, average - self.mean
        # (A shift)^T (A A^T)^+ (A shift): the part of the shift in A's row space.
        lengths = np.array(
            [np.square(np.linalg.pinv(a) @ (a @ shift)).sum() for a in self.maps]
        )
        spread = -np.log1p(-1 / n) - 1 / n
        return 0.5 * (self.ranks * spread + lengths / self.deviation**2)

    @property
    def expected_kl(self) -> Float[np.ndarray, "l"]:
        """The mean of `kl` over averages, for matrices that do not depend on them.

        E KL_l = r_l / 2 log(n / (n - 1))
        """
        return -0.5 * self.ranks * np.log1p(-1 / self.num_examples)

    def squared_wasserstein(
        self, average: Float[np.ndarray, "d"]
    ) -> Float[np.ndarray, "l"]:
        """Squared 2-Wasserstein distance of the same two, given the average.

            W_2,l^2 = |A_l (a - mu)|^2 + (1 - sqrt(1 - 1/n))^2 tr S_l

        Its root is at least the 1-Wasserstein distance of (T_l,i, Y_i) from (T_l, Y),
        since moving each label's examples among themselves is a way to move all.
        """
        shift = average - self.mean
        moved = np.array([np.square(a @ shift).sum() for a in self.maps])
        return moved + self._shrinkage**2 * self._traces

    @property
    def expected_squared_wasserstein(self) -> Float[np.ndarray, "l"]:
        """The mean of `squared_wasserstein` over averages, for matrices without them.

        E W_2,l^2 = (1/n + (1 - sqrt(1 - 1/n))^2) tr S_l
        """
        return (1 / self.num_examples + self._shrinkage**2) * self._traces

    @property
    def _shrinkage(self) -> float:
        return 1 - float(np.sqrt(1 - 1 / self.num_examples))

    @property
    def _traces(self) -> Float[np.ndarray, "l"]:
        return np.array([np.square(self.deviation * a).sum() for a in self.maps])

    def kl_bounds(self, sub_gaussian: float) -> Float[np.ndarray, "l"]:
        """The hierarchical bound by divergence of every layer; the last is the best.

            |E gap| <= sqrt(2) sigma sqrt(E KL_l)

        Args:
            sub_gaussian: sigma of the loss; half its range where it has one.

        Returns:
            On the mean difference between test and training loss, in units of the
            loss. It holds for each layer whose map A_l does not depend on the training
            examples, whatever those after it are.
        """
        return sub_gaussian * np.sqrt(2 * self.expected_kl)

    def wasserstein_bounds(self, lipschitz: float) -> Float[np.ndarray, "l"]:
        """The hierarchical bound by transport; where it is least is the funnel.

            |E gap| <= rho max(1, prod_{j > l} |W_j|) sqrt(E W_2,l^2)

        Args:
            lipschitz: rho of the loss, in output and label together.

        Returns:
            As `kl_bounds`; the norms of the layers after l are those given here, or
            larger ones if they depend on the examples.
        """
        return lipschitz * self.tails * np.sqrt(self.expected_squared_wasserstein)

    @property
    def funnel(self) -> int:
        """The layer with the least bound by transport."""
        return int(np.argmin(self.wasserstein_bounds(1.0)))
