import dataclasses
import functools
import gzip
import http.server
import lzma
import struct
import sys
import tarfile
import threading

import numpy as np
import pytest

from kd.data import cifar as cifar10
from kd.data import files, sources, tfds
from kd.data.images import CIFAR10, FASHION_MNIST, MNIST
from kd.errors import UserError

LABELS = {"train": [0, 9, 3, 3, 1], "t10k": [9, 0, 5]}


def idx(array):
    """An idx file of bytes."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def images_of(part, size=4):
    shape = (len(LABELS[part]), size, size)
    return np.random.default_rng(len(part)).integers(0, 256, shape)


@pytest.fixture
def folder(tmp_path):
    """Fashion-MNIST of a few tiny images."""
    path = tmp_path / "fashion-mnist"
    path.mkdir()
    for part, labels in LABELS.items():
        (path / f"{part}-images-idx3-ubyte").write_bytes(idx(images_of(part)))
        (path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array(labels)))
    return path


def load(folder, dev_share=0.0):
    task = dataclasses.replace(
        FASHION_MNIST, directory=str(folder.parent), dev_share=dev_share
    )
    return sources.load(task)


def message(folder):
    with pytest.raises(UserError) as refused:
        load(folder)
    (line,) = str(refused.value).splitlines()
    return line


def test_local_images(folder):
    corpus = load(folder)
    assert corpus.origin == "local fashion-mnist (5 train, 3 dev)"
    assert corpus.train.inputs.shape == (5, 4, 4, 1)
    np.testing.assert_array_equal(corpus.dev.inputs[..., 0], images_of("t10k"))
    assert corpus.train.labels.tolist() == LABELS["train"]
    assert corpus.train.labels.dtype == np.int32


def test_dev_is_held_out_of_train_and_the_test_split_is_apart(folder):
    random = np.random.default_rng(1)
    images, labels = random.integers(0, 256, (400, 4, 4)), np.arange(400) % 10
    images[200:] = images[:200]  # Every image twice.
    order = random.permutation(400)

    def divided(order, share):
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"train-{name}-ubyte"
            path.write_bytes(idx(array[order]))
        return load(folder, share)

    corpus = divided(order, 0.25)
    assert 70 < len(corpus.dev) < 130
    assert corpus.origin.endswith(f"{len(corpus.dev)} dev, 3 test)")
    assert corpus.test is not None
    np.testing.assert_array_equal(corpus.test.inputs[..., 0], images_of("t10k"))

    def contents(records):
        return sorted(
            (image.tobytes(), label)
            for image, label in zip(records.inputs, records.labels, strict=True)
        )

    whole = divided(order, 0.0)
    assert whole.test is None
    assert contents(corpus.train) + contents(corpus.dev) != contents(whole.train)
    assert sorted(contents(corpus.train) + contents(corpus.dev)) == contents(
        whole.train
    )
    # Twins are on one side, and who is of dev does not depend on the order.
    assert not {x for x, _ in contents(corpus.dev)} & {
        x for x, _ in contents(corpus.train)
    }
    again = divided(np.arange(400), 0.25)
    assert contents(again.dev) == contents(corpus.dev)
    # A smaller share is part of a larger one.
    assert set(contents(divided(order, 0.1).dev)) < set(contents(corpus.dev))
    # What is tested on is part of what is looked at.
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([9, 0, 6])))
    assert divided(order, 0.25).fingerprint != corpus.fingerprint


def test_too_few_images_to_hold_some_out(folder):
    with pytest.raises(UserError) as refused:
        load(folder, 1e-9)
    assert str(refused.value) == (
        "fashion-mnist: of its 5 training images none falls to dev at a dev_share of "
        "1e-09; it needs more images, or 0 for the test split as dev"
    )
    with pytest.raises(ValueError, match=r"dev_share must lie in \[0, 1\), got 1.0"):
        dataclasses.replace(FASHION_MNIST, dev_share=1.0)


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_compressed_files_read_like_plain_ones(folder, suffix, compress):
    plain = load(folder)
    for path in list(folder.iterdir()):
        path.with_name(path.name + suffix).write_bytes(compress(path.read_bytes()))
        path.unlink()
    assert load(folder).fingerprint == plain.fingerprint


def test_the_fingerprint_is_of_pixels_labels_and_shape(folder):
    prints = {load(folder).fingerprint}
    images = images_of("train")
    flipped = images.copy()
    flipped[-1, -1, -1] ^= 1
    for changed in (flipped, images[::-1]):
        (folder / "train-images-idx3-ubyte").write_bytes(idx(changed))
        prints.add(load(folder).fingerprint)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.array([0, 9, 3, 3, 2])))
    prints.add(load(folder).fingerprint)
    assert len(prints) == 4


WHOLE = idx(np.zeros((5, 4, 4)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "it begins with nothing, expected 00 00 08 03"),
        (b"P5\n28", "it begins with 50 35 0a 32, expected 00 00 08 03"),
        (idx(np.zeros(5)), "it begins with 00 00 08 01"),
        (WHOLE[:9], "ends within its header"),
        (WHOLE[:-1], "79 bytes after the header; expected 5 x 4 x 4 = 80"),
        (WHOLE + b"\0", "81 bytes after the header"),
        (idx(np.zeros((0, 4, 4))), "no examples"),
    ],
)
def test_malformed_images(folder, content, expected):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(content)
    line = message(folder)
    assert line.startswith(f"{path}: ") and expected in line


def test_labels_must_fit_the_images_and_the_task(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.array([1, 2])))
    assert message(folder) == f"{path}: 2 labels for 3 images"
    path.write_bytes(idx(np.array([1, 10, 2])))
    assert message(folder) == f"{path}: example 1 is of class 10; expected 0 to 9"


def test_images_are_of_one_size(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images_of("t10k", size=5)))
    assert "images of train are (4, 4), of dev (5, 5)" in message(folder)


def test_a_missing_file_and_a_missing_folder(folder):
    path = folder / "train-images-idx3-ubyte"
    path.unlink()
    assert message(folder) == f"{path}: no such file, nor with .gz or .xz"
    folder.rename(folder.with_name("FashionMNIST"))
    line = message(folder)
    assert line.startswith(f"no fashion-mnist folder in {folder.parent}; expected")
    assert line.endswith("folders there: FashionMNIST")


def test_nothing_stands_in(monkeypatch):
    def unreachable(task):
        raise UserError("TFDS fashion_mnist: no network")

    monkeypatch.setattr(tfds, "read", unreachable)
    with pytest.raises(UserError) as refused:
        sources.load(FASHION_MNIST)
    assert str(refused.value) == (
        "TFDS fashion_mnist: no network; DATA_DIR=DIR reads"
        " DIR/fashion-mnist/train-images-idx3-ubyte"
    )


@pytest.fixture
def cifar(tmp_path):
    """CIFAR-10 of two images in each file."""
    path = tmp_path / "cifar-10-batches-bin"
    path.mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = np.arange(2 * 3072).reshape(2, 3072) + i
        records = np.concatenate([[[i], [9 - i]], pixels % 256], axis=1)
        (path / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    return path


def test_cifar(cifar):
    task = dataclasses.replace(CIFAR10, directory=str(cifar.parent), dev_share=0)
    corpus = sources.load(task)
    assert corpus.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert corpus.dev.labels.tolist() == [5, 4]
    assert corpus.train.inputs.shape == (10, 32, 32, 3)
    # Row 1, column 2 of the third image, from the second file.
    expected = [(channel * 1024 + 32 + 2 + 1) % 256 for channel in range(3)]
    assert corpus.train.inputs[2, 1, 2].tolist() == expected


def test_malformed_cifar(cifar):
    task = dataclasses.replace(CIFAR10, directory=str(cifar.parent), dev_share=0)
    path = cifar / "data_batch_3.bin"
    whole = path.read_bytes()
    for content, expected in (
        (whole[:-1], "6,145 bytes; expected records of 3,073"),
        (b"", "0 bytes; expected records of 3,073"),
        (b"\x0a" + whole[1:], "example 0 is of class 10; expected 0 to 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError) as refused:
            sources.load(task)
        assert str(refused.value).startswith(f"{path}: {expected}")


def test_real_cifar_records(shared_data):
    path, content = files.read(
        shared_data, "cifar10-exact-1000", "data_batch_1_first1000.bin"
    )
    images, labels = cifar10.parse(path, content)
    assert images.shape == (1000, 32, 32, 3)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]  # a frog, two trucks, a deer, a car
    # Neighbours in a picture are alike; with the axes mixed up they would not be.
    steps = np.abs(np.diff(images.astype(float), axis=2)).mean()
    assert steps < 0.5 * np.abs(np.diff(images.astype(float), axis=0)).mean()


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of the files in www/; what TFDS makes of them goes to tfds/."""
    constants = pytest.importorskip("tensorflow_datasets.core.constants")
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / "tfds"))
    (tmp_path / "www").mkdir()
    handler = functools.partial(Silent, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_tfds_prepares_grey_images_without_tensorflow(server, tmp_path, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 5)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 3)
    monkeypatch.setattr(mnist.FashionMNIST, "URL", server)
    for part, labels in LABELS.items():
        images = images_of(part, size=28)
        for name, array in (("images-idx3", images), ("labels-idx1", np.array(labels))):
            path = tmp_path / "www" / f"{part}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))
    url = server + FASHION_MNIST.url.rpartition("/")[2]
    corpus = sources.load(dataclasses.replace(FASHION_MNIST, url=url, dev_share=0.0))
    assert corpus.origin == "TFDS fashion_mnist 3.0.1 (5 train, 3 dev)"
    assert sorted(corpus.train.labels) == sorted(LABELS["train"])
    # TFDS shuffles; a picture keeps its label.
    for image, label in zip(corpus.dev.inputs, corpus.dev.labels, strict=True):
        place = LABELS["t10k"].index(label)
        np.testing.assert_array_equal(image[..., 0], images_of("t10k", 28)[place])
    assert "tensorflow" not in sys.modules


def test_tfds_prepares_coloured_images_without_tensorflow(
    server, cifar, tmp_path, monkeypatch
):
    from tensorflow_datasets.image_classification.cifar import Cifar10, CifarInfo

    url = server + "cifar-10-binary.tar.gz"
    info = CifarInfo(
        name="cifar10",
        url=url,
        train_files=[f"data_batch_{i}.bin" for i in range(1, 6)],
        test_files=["test_batch.bin"],
        prefix="cifar-10-batches-bin/",
        label_files=["batches.meta.txt"],
        label_keys=["label"],
    )
    monkeypatch.setattr(Cifar10, "_cifar_info", info)
    local = sources.load(
        dataclasses.replace(CIFAR10, directory=str(cifar.parent), dev_share=0)
    )
    (cifar / "batches.meta.txt").write_text("\n".join(CIFAR10.labels))
    with tarfile.open(tmp_path / "www" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(cifar, arcname=cifar.name)
    corpus = sources.load(dataclasses.replace(CIFAR10, url=url, dev_share=0))
    order = np.argsort(corpus.train.labels)
    expected = np.argsort(local.train.labels)
    np.testing.assert_array_equal(
        corpus.train.inputs[order], local.train.inputs[expected]
    )
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("task", [FASHION_MNIST, MNIST])
def test_agreement_with_tfds(task):
    mnist = pytest.importorskip("tensorflow_datasets.image_classification.mnist")
    builder = {"fashion_mnist": mnist.FashionMNIST, "mnist": mnist.MNIST}[task.tfds]
    assert task.url.startswith(builder.URL)


@pytest.mark.parametrize("task", [FASHION_MNIST, MNIST])
def test_the_real_files(shared_data, task):
    task = dataclasses.replace(task, directory=str(shared_data))
    corpus = sources.load(task)
    assert corpus.test is not None
    num_train, num_dev = len(corpus.train), len(corpus.dev)
    assert num_train + num_dev == 60_000
    assert abs(num_dev - 6_000) < 3 * np.sqrt(60_000 * 0.1 * 0.9)
    assert corpus.test.inputs.shape == (10_000, 28, 28, 1)
    if task.tfds == "fashion_mnist":
        assert (np.bincount(corpus.test.labels) == 1000).all()
