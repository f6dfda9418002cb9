import dataclasses
import functools
import http.server
import json
import pathlib
import socket
import sys
import threading
import time
import zipfile

import numpy as np
import pytest

from kd.data import sources, tfds
from kd.data.glue import SST2
from kd.errors import UserError

HEADER = "sentence\tlabel\n"
TSV = {
    "train": HEADER + "".join(f"film {i} is fine \t{i % 2}\n" for i in range(20)),
    "dev": HEADER + 'a "café" film \t1\n',
    "test": "index\tsentence\n0\tno label here\n",
}


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def prepared_in(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty folder for TFDS to prepare data in."""
    constants = pytest.importorskip("tensorflow_datasets.core.constants")
    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves SST-2.zip in place of the GLUE host."""
    (tmp_path / "www").mkdir()
    with zipfile.ZipFile(tmp_path / "www" / "SST-2.zip", "w") as archive:
        for split, text in TSV.items():
            archive.writestr(f"SST-2/{split}.tsv", text)
    handler = functools.partial(Silent, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def task_at(url, monkeypatch):
    from tensorflow_datasets.text.glue import Glue

    (config,) = [c for c in Glue.BUILDER_CONFIGS if c.name == "sst2"]
    monkeypatch.setattr(config, "data_url", url)
    return dataclasses.replace(SST2, url=url)


@pytest.fixture
def task(server, monkeypatch):
    return task_at(f"http://127.0.0.1:{server.server_port}/SST-2.zip", monkeypatch)


@pytest.fixture
def offline():
    """SST-2 at an address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return dataclasses.replace(SST2, url=f"http://127.0.0.1:{port}/SST-2.zip")


def message(task):
    with pytest.raises(UserError) as caught:
        tfds.read(task)
    (line,) = str(caught.value).splitlines()
    return line


def test_downloads_once_then_reads_offline(prepared_in, task, offline, capfd):
    first = tfds.read(task)
    train, dev = (SST2.from_tfds(rows) for rows in (first.train, first.dev))
    assert sorted(train.texts) == sorted(f"film {i} is fine" for i in range(20))
    assert [int(text.split()[1]) % 2 for text in train.texts] == train.labels.tolist()
    assert (dev.texts, dev.labels.tolist()) == (['a "café" film'], [1])
    assert first.version == "2.0.0"
    assert pathlib.Path(first.directory) == prepared_in / "glue" / "sst2" / "2.0.0"
    again = tfds.read(offline)
    assert SST2.from_tfds(again.train).content() == train.content()
    assert again[2:] == first[2:]
    assert capfd.readouterr() == ("", "")
    assert "tensorflow" not in sys.modules


class Rows(list):
    def __getitems__(self, keys):
        return [self[key] for key in keys]


def test_text_may_arrive_as_bytes_or_str(prepared_in, task):
    import tensorflow_datasets

    def as_data_source(self, split):
        rows = [
            {"idx": 0, "label": np.int64(1), "sentence": "café "},
            {"idx": 1, "label": np.int64(0), "sentence": "café ".encode()},
        ]
        return [Rows(rows), Rows(rows[:1])]

    with tensorflow_datasets.testing.mock_data(as_data_source_fn=as_data_source):
        corpus = sources.load(task)
    assert corpus.origin == "TFDS glue/sst2 2.0.0 (2 train, 1 dev)"
    assert corpus.train.texts == ["café", "café"]
    assert corpus.train.labels.tolist() == [1, 0]


def test_no_network_is_noticed_in_seconds(prepared_in, offline, capfd):
    start = time.perf_counter()
    line = message(offline)
    assert time.perf_counter() - start < tfds.PATIENCE + 3  # of imports
    host = offline.url.split("/")[2]
    assert line == (
        "TFDS glue/sst2: not prepared on this machine, and no download from"
        f" {host} (ConnectionError)"
    )
    assert capfd.readouterr() == ("", "")
    assert not prepared_in.exists()


def test_a_silent_host_is_given_up(prepared_in, monkeypatch):
    monkeypatch.setattr(tfds, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.perf_counter()
        line = message(dataclasses.replace(SST2, url=f"http://127.0.0.1:{port}/x"))
        assert time.perf_counter() - start < 5
    assert "(no answer in 0.2 s)" in line or "(ReadTimeout)" in line


def test_a_slow_look_up_of_the_name_is_given_up(prepared_in, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(tfds, "PATIENCE", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: released.wait(60) and [])
    try:
        assert message(SST2).endswith("dl.fbaipublicfiles.com (no answer in 0.2 s)")
    finally:
        released.set()


def test_a_missing_download(prepared_in, task):
    line = message(dataclasses.replace(task, url=task.url + ".gone"))
    assert line.endswith("(HTTP 404)")


def test_failure_while_preparing(prepared_in, task, tmp_path):
    (tmp_path / "www" / "SST-2.zip").write_bytes(b"not an archive")
    line = message(task)
    assert line.startswith("TFDS glue/sst2: ExtractError: ")


def test_files_that_only_tensorflow_reads(prepared_in, task):
    info = pathlib.Path(tfds.read(task).directory) / "dataset_info.json"
    facts = json.loads(info.read_text())
    assert facts["fileFormat"] == "array_record"
    info.write_text(json.dumps(facts | {"fileFormat": "tfrecord"}))
    assert message(task) == (
        "TFDS glue/sst2: prepared as files that only TensorFlow reads; set"
        " TFDS_DATA_DIR to another folder to prepare it anew"
    )


def test_no_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert "cannot import tensorflow_datasets" in message(SST2)
