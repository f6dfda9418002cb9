"""Retrieval: whether neighbours in a network's features are of the same class."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.metrics.pairwise import pairwise_distances

Distance = Literal["cosine", "euclidean"]

_QUERIES_AT_A_TIME = 64


class Retrieval(NamedTuple):
    """How well a class is found, between 0 and 1."""

    mean_average_precision: float
    """Over the queries, of the precision at the rank of every right answer."""
    precision: float
    """Share of right answers among the nearest ones."""
    num_queries: int


def retrieve(
    queries: Float[np.ndarray, "n d"],
    query_classes: Int[np.ndarray, "n"],
    database: Float[np.ndarray, "m d"],
    database_classes: Int[np.ndarray, "m"],
    *,
    distance: Distance = "cosine",
    nearest: int = 100,
) -> Retrieval:
    """Ranks a database by its distance to every query.

        AP_i = 1/R_i sum_{j of the class of i} (of its class, no farther) / (no farther)
        mAP  = mean_i AP_i

    where "no farther" counts the entries whose distance from query i is at most that of
    j, and R_i those of its class. Queries of a class that the database lacks are left
    out.

    Args:
        queries: features.
        query_classes: of each.
        database: features of what is searched.
        database_classes: of each.
        distance: that ranks.
        nearest: how many answers the precision is of, all if there are fewer.

    Raises:
        ValueError: no query has its class in the database.

    Source: passalis2020heterogeneous, Section 4, with 100 nearest. The authors' code
    interpolates the precision at eleven levels of recall instead.
    """
    known = np.isin(query_classes, database_classes)
    if not known.any():
        raise ValueError("no query is of a class that is in the database")
    queries, query_classes = queries[known], query_classes[known]
    nearest = min(nearest, len(database))
    precision_sum = right = 0.0
    for start in range(0, len(queries), _QUERIES_AT_A_TIME):
        some = slice(start, start + _QUERIES_AT_A_TIME)
        apart = pairwise_distances(queries[some], database, metric=distance)
        relevant = query_classes[some, None] == database_classes[None]
        average = label_ranking_average_precision_score(relevant, -apart)
        precision_sum += average * len(apart)
        first = np.argpartition(apart, nearest - 1, axis=1)[:, :nearest]
        right += np.take_along_axis(relevant, first, axis=1).sum()
    number = len(queries)
    return Retrieval(precision_sum / number, right / (number * nearest), number)
