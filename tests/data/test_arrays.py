import numpy as np
import pytest

from kd.data import arrays
from kd.data.arrays import Arrays, Normalization
from kd.data.pipeline import TrainingBatches
from kd.data.task import Corpus
from kd.errors import UserError


def prepare(corpus, directory, adopt=""):
    arrays.put_normalization(corpus, directory, adopt=adopt)
    return arrays.normalized(corpus, directory)


def corpus_of(inputs):
    labels = np.arange(len(inputs), dtype=np.int32) % 3
    records = Arrays(inputs, labels)
    return Corpus(
        train=records, dev=Arrays(inputs[:5], labels[:5]), source="local", name="x"
    )


@pytest.fixture
def corpus():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (23, 4, 5, 2), dtype=np.uint8)
    images[..., 1] //= 8
    return corpus_of(images)


def test_channels_get_mean_0_and_variance_1(corpus, tmp_path):
    data = prepare(corpus, tmp_path)
    inputs = data.train.inputs(np.arange(23))["inputs"]
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 1, 2)), 1, rtol=1e-5)
    assert data.vocab_size == 0


def test_dev_is_normalized_as_train_is(corpus, tmp_path):
    data = prepare(corpus, tmp_path)
    index = np.array([3, 1])
    np.testing.assert_array_equal(
        data.dev.inputs(index)["inputs"], data.train.inputs(index)["inputs"]
    )


def test_large_numbers_keep_their_variance(tmp_path):
    table = np.random.default_rng(1).normal(3e6, 10, (1000, 2)).astype(np.float32)
    found = Normalization.of(table)
    np.testing.assert_allclose(found.std, table.astype(np.float64).std(axis=0))
    assert np.abs(found(table)).max() < 6


def test_what_does_not_vary_stays_finite():
    found = Normalization.of(np.full((4, 2), 7.0, np.float32))
    assert found(np.full((1, 2), 7.0)).tolist() == [[0, 0]]


def test_the_normalization_belongs_to_the_network(corpus, tmp_path):
    ours = prepare(corpus, tmp_path / "teacher")
    other = corpus_of(255 - corpus.train.inputs)
    adopted = prepare(other, tmp_path / "student", adopt=str(tmp_path / "teacher"))
    assert adopted.preprocessing == ours.preprocessing
    assert arrays.preprocessing(tmp_path / "student") == ours.preprocessing
    assert prepare(other, tmp_path / "own").preprocessing != ours.preprocessing


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"mean": [1]}', "expected {"),
        ('{"mean": [1], "std": [0]}', "positive std"),
        ('{"mean": [1, 2], "std": [1]}', "as many"),
        ('{"mean": [1, 2, 3], "std": [1, 1, 1]}', "is for 3 channels or columns, the"),
    ],
)
def test_a_damaged_normalization(corpus, tmp_path, content, expected):
    (tmp_path / "normalization.json").write_text(content)
    with pytest.raises(UserError) as refused:
        prepare(corpus, tmp_path)
    assert expected in str(refused.value)
    assert str(tmp_path / "normalization.json") in str(refused.value)


def test_no_normalization(tmp_path):
    with pytest.raises(UserError, match=r"has no normalization\.json"):
        arrays.preprocessing(tmp_path)


def test_batches_are_of_one_shape(corpus, tmp_path):
    data = prepare(corpus, tmp_path)
    batches = TrainingBatches(data.train, batch_size=10, rows=12, seed=0)
    assert batches.per_epoch == 3
    epoch = [batches[i] for i in range(3)]
    assert {batch["inputs"].shape for batch in epoch} == {(12, 4, 5, 2)}
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in epoch])
    assert sorted(seen) == list(range(23))
    for batch in epoch:
        np.testing.assert_array_equal(
            batch["inputs"], data.train.inputs(batch["index"])["inputs"]
        )
