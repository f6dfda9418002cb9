"""Retrieval against a loop over queries and answers."""

import numpy as np
import pytest

from kd.analysis.retrieval import retrieve

RANDOM = np.random.default_rng(0)


def apart(x, y, distance):
    if distance == "euclidean":
        return np.linalg.norm(x - y)
    return 1 - x @ y / (np.linalg.norm(x) * np.linalg.norm(y))


def by_hand(queries, classes, database, database_classes, distance, nearest):
    averages, shares = [], []
    for query, wanted in zip(queries, classes, strict=True):
        distances = np.array([apart(query, entry, distance) for entry in database])
        right = database_classes == wanted
        precisions = [
            np.mean(right[distances <= distances[j]]) for j in np.flatnonzero(right)
        ]
        averages.append(np.mean(precisions))
        shares.append(np.mean(right[np.argsort(distances)[:nearest]]))
    return np.mean(averages), np.mean(shares)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_equals_a_loop(distance):
    queries, database = RANDOM.normal(size=(70, 3)), RANDOM.normal(size=(50, 3))
    classes, others = RANDOM.integers(0, 3, 70), RANDOM.integers(0, 3, 50)
    found = retrieve(queries, classes, database, others, distance=distance, nearest=7)
    expected = by_hand(queries, classes, database, others, distance, 7)
    np.testing.assert_allclose(found[:2], expected, rtol=1e-9)
    assert found.num_queries == 70


def test_equal_distances_count_as_no_farther():
    # The right answer is as far as two wrong ones.
    database, classes = np.array([[1.0], [1.0], [-1.0], [5.0]]), np.array([0, 1, 1, 1])
    found = retrieve(
        np.array([[0.0]]), np.array([0]), database, classes, distance="euclidean"
    )
    np.testing.assert_allclose(found[:2], (1 / 3, 1 / 4))


def test_clusters_are_found_whole_and_noise_as_often_as_it_is_there():
    labels = np.repeat([0, 1], 40)
    clusters = RANDOM.normal(0, 0.01, (80, 2)) + np.eye(2)[labels]
    found = retrieve(clusters, labels, clusters, labels, nearest=40)
    assert found[:2] == (1, 1)
    noise = RANDOM.normal(size=(2000, 5))
    labels = np.arange(2000) % 4
    found = retrieve(noise[:200], labels[:200], noise[200:], labels[200:])
    np.testing.assert_allclose(found[:2], 0.25, atol=0.02)


def test_queries_without_an_answer_are_left_out():
    database, classes = RANDOM.normal(size=(9, 2)), np.arange(9) % 3
    queries, labels = RANDOM.normal(size=(4, 2)), np.array([0, 7, 1, 7])
    found = retrieve(queries, labels, database, classes)
    assert found.num_queries == 2
    assert found == retrieve(queries[::2], labels[::2], database, classes)
    with pytest.raises(ValueError, match="no query is of a class that is in the d"):
        retrieve(queries, labels + 7, database, classes)
