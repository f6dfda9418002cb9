"""Any content of any file of a data set."""

import dataclasses
import pathlib
import tempfile

import hypothesis
import numpy as np
from fuzz.outcomes import FUZZ, outcome
from hypothesis import strategies as st

from kd.data import sources
from kd.data.glue import COLA, MRPC, STSB
from kd.data.images import CIFAR10_JPEG, CIFAR100, ImageTask
from kd.data.superglue import CB, COPA, WSC
from kd.data.tables import TableTask
from kd.evaluate.classes import Classes

SPOTS = ImageTask(name="spots", target=Classes(("a", "b")))
POINTS = TableTask(name="points", file="points.csv", target=Classes(("low", "high")))
STS_HEADER = b"index\tsentence1\tsentence2\tscore\n"
SAMPLES = {
    COLA: {f"{p}.tsv": b"a\t1\t\tFine.\nb\t0\t*\tBad it.\n" for p in ("train", "dev")},
    MRPC: {
        f"{p}.tsv": b"\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        b"1\t2\t3\tx\ty\n"
        for p in ("train", "dev")
    },
    STSB: {
        f"{p}.tsv": STS_HEADER + b"0\tA.\tB.\t2.5\n1\tC.\tD.\t5\n"
        for p in ("train", "dev")
    },
    CB: {
        f"{p}.jsonl": b'{"premise": "a", "hypothesis": "b", "label": "neutral"}\n'
        for p in ("train", "val")
    },
    WSC: {
        f"{p}.jsonl": b'{"text": "a b", "target": {"span1_text": "a", "span2_text": '
        b'"b"}, "label": true}\n'
        for p in ("train", "val")
    },
    COPA: {
        f"{p}.jsonl": b'{"premise": "a", "choice1": "b", "choice2": "c", "question": '
        b'"cause", "label": 1}\n'
        for p in ("train", "val")
    },
    CIFAR100: {f"{p}.bin": bytes(3074) for p in ("train", "test")},
    CIFAR10_JPEG: {"cifar10-jpeg.tar": bytes(1024)},
    SPOTS: {
        f"{part}-{name}-ubyte": head + body
        for part in ("train", "t10k")
        for name, head, body in (
            (
                "images-idx3",
                b"\0\0\x08\x03" + np.array([2, 2, 2], ">u4").tobytes(),
                bytes(8),
            ),
            ("labels-idx1", b"\0\0\x08\x01" + np.array([2], ">u4").tobytes(), b"\0\1"),
        )
    },
    POINTS: {
        "points.csv": b"x,y,label\n"
        + b"".join(b"%d,%d,low\n" % (i, i * i) for i in range(40))
    },
}
TASKS = list(SAMPLES)
PIECES = st.sampled_from(
    [
        *(b"\t", b"\n", b"\r", b"\0", b'"', b",", b"{", b"}", b"\xff", b"\xef\xbb\xbf"),
        *(b"nan", b"1e999", b"-1", b"null", b"[1]", b"low", b"9" * 400, b"\xc2\x85"),
        b"\x1f\x8b",
    ]
)


@st.composite
def damaged(draw, content):
    """Some bytes of a content replaced, left out or put in."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.integers(0, 6))
        piece = draw(st.one_of(PIECES, st.binary(max_size=4), st.just(b"")))
        content = content[:at] + piece + content[at + cut :]
    return content[: draw(st.sampled_from([None, None, None, 0, 1, len(content) // 2]))]


@hypothesis.given(st.data())
@hypothesis.settings(FUZZ)
def test_any_file(data):
    task = data.draw(st.sampled_from(TASKS))
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder) / task.name
        place.mkdir()
        for name, content in SAMPLES[task].items():
            suffix = data.draw(st.sampled_from(["", "", "", ".gz", ".xz"]))
            kind = data.draw(st.integers(0, 30))
            path = place / (name + suffix)
            if kind == 0:
                path.mkdir()
            elif kind > 1:
                whole = data.draw(st.integers(0, 2))
                path.write_bytes(content if whole else data.draw(damaged(content)))
        before = sorted(p.name for p in place.iterdir())
        corpus = outcome(
            "data files",
            lambda: sources.load(
                dataclasses.replace(task, source="local", directory=folder)
            ),
        )
        if corpus is not None:
            assert len(corpus.train) and len(corpus.dev) and corpus.fingerprint
            assert not task.target.problem(corpus.train.labels)
        assert sorted(p.name for p in place.iterdir()) == before
