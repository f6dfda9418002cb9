"""Tasks that are written: files, formats, what is too long, and what a batch holds."""

import dataclasses
import io
import json
import sys
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from kd.data import byte_bpe, sources
from kd.data.byte_bpe import ByteBPE
from kd.data.dart import DART
from kd.data.pairs import EncodedPairs
from kd.data.parallel import ParallelTask
from kd.data.superglue import CB
from kd.data.webnlg import WEBNLG
from kd.data.words import CB_WORDS, as_words
from kd.errors import UserError
from kd.evaluate import written
from kd.models.bert import Bert
from kd.models.gpt2 import GPT2

NUM = 40


@pytest.fixture(autouse=True)
def no_packages_needed(monkeypatch):
    monkeypatch.setattr(written, "_package", lambda *names: None)
    monkeypatch.setattr(written, "_scorer", lambda name: None)


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "data/pairs"
    folder.mkdir(parents=True)
    for split, num in (("train", NUM), ("val", 8), ("test", 6)):
        lines = [f"{i} and  {i * i}" for i in range(num)]
        (folder / f"{split}.en").write_text("".join(f"{x}\n" for x in lines))
        (folder / f"{split}.de").write_text("".join(f"{x[::-1]} !\n" for x in lines))
    return ParallelTask(
        name="pairs",
        files=("train", "val", "test"),
        languages=("en", "de"),
        target_format=" {}",
        tokenizer=ByteBPE(size=300),
        widths=(4, 16),
        target_widths=(5, 24),
        directory=str(tmp_path / "data"),
    )


def prepared(task, tmp_path):
    return task.prepare(sources.load(task), tmp_path / "model")


def test_what_a_batch_holds(task, tmp_path):
    data = prepared(task, tmp_path)
    assert (len(data.train), len(data.dev), len(data.test)) == (NUM, 8, 6)
    assert data.notices == ()
    for group in np.unique(data.train.groups):
        index = np.flatnonzero(data.train.groups == group)
        rows = data.train.inputs(index)
        assert rows["tokens"].shape[1] == task.widths[group]
        assert rows["labels"].shape[1] == task.target_widths[group]
        there = rows["target_mask"]
        np.testing.assert_array_equal(rows["prediction_mask"], there)
        np.testing.assert_array_equal(rows["labels"] >= 0, there)
        np.testing.assert_array_equal(
            rows["labels"][there], rows["target_tokens"][there]
        )
        for i, row in enumerate(index):
            source = rows["tokens"][i][rows["token_mask"][i]]
            assert data.train.decode(source.tolist()) == f"{row} and {row * row}"
            # A text, and its end.
            ids = rows["labels"][i][there[i]]
            assert ids[-1] == 0 and 0 not in ids[:-1]
            text = data.train.decode(ids.tolist())
            assert text == " ".join(f"{row} and  {row * row}"[::-1].split()) + " !"
            assert rows["num_bytes"][i].sum() == len(f" {text}")
    # No example is in a group that it does not need.
    assert {0, 1} == {*data.train.groups.tolist()}
    small = data.train.groups == 0
    assert all(len(data.train.sources[i]) <= 4 for i in np.flatnonzero(small))
    assert all(len(data.train.targets[i]) <= 5 for i in np.flatnonzero(small))
    assert all(
        len(data.train.sources[i]) > 4 or len(data.train.targets[i]) > 5
        for i in np.flatnonzero(~small)
    )
    references = data.dev.references
    assert references["texts"][3] == "9 dna 3 !"
    np.testing.assert_array_equal(references["tokens"], data.dev.labels)


def test_a_tokenizer_that_ends_texts_itself(task, tmp_path):
    tokenizer = byte_bpe.train(["0 1 2 3 4 5 6 7 8 9 and dna !"], size=270)
    tokenizer.add_special_tokens(["</s>"])
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    byte_bpe.save(tokenizer, tmp_path / "other", end="</s>")
    wide = dataclasses.replace(task, widths=(24, 32), target_widths=(24, 32))
    corpus = sources.load(wide)
    wide.put_preprocessing(corpus, tmp_path / "model", adopt=str(tmp_path / "other"))
    data = wide.encode(corpus, tmp_path / "model")
    assert data.end == (end,) == wide.special_tokens(tmp_path / "model").end
    assert isinstance(data.train, EncodedPairs)
    for ids in (*data.train.sources, *data.train.targets):
        assert ids[-1] == end and (ids == end).sum() == 1
    assert (data.train.inputs(np.arange(3))["num_bytes"] > 0).sum(axis=1).min() > 0


def test_too_long_is_refused_or_cut_and_counted(task, tmp_path):
    short = dataclasses.replace(task, widths=(2, 4), target_widths=(3, 5))
    with pytest.raises(
        UserError, match=r"pairs, train: .* of 40 sources have more than 4 tokens.*cut"
    ):
        prepared(short, tmp_path)
    data = prepared(dataclasses.replace(short, too_long="cut"), tmp_path)
    assert max(map(len, data.train.sources)) == 4
    assert max(map(len, data.train.targets)) == 5
    assert any("train" in n and "sources" in n and "cut" in n for n in data.notices)
    assert any("dev" in n and "texts" in n for n in data.notices)
    # What is judged by is whole.
    assert data.dev.references["texts"][3] == "9 dna 3 !"


def test_lines_that_do_not_match(task, tmp_path):
    path = tmp_path / "data/pairs/val.de"
    path.write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"val.de has 2 lines, .*val.en 8; expected as"):
        sources.load(task)
    path.write_text("one\n\n" + 6 * "x\n")
    with pytest.raises(UserError, match=r"val.de:2: empty; expected a text a line"):
        sources.load(task)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source_format": "text"}, r"source_format needs one {} for the text"),
        ({"widths": (16, 8)}, "widths must be positive, increasing"),
        ({"target_widths": (8,)}, "target_widths must be as many as widths, 2"),
        ({"num_beams": 0}, "num_beams must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(task, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(task, **fields)


def test_networks_that_cannot_do_it(task):
    with pytest.raises(ValueError, match="student is a Bert, which does not write"):
        task.check(Bert.tiny(), "student")
    with pytest.raises(ValueError, match=r"16, and of data.target_widths, 24, exceed"):
        task.check(GPT2(max_length=39), "student")
    task.check(GPT2(max_length=40), "student")


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(
        UserError, match="sacrebleu, which is not installed: pip install"
    ):
        written.WrittenText().check_installed()


# --- WebNLG ---

XML = """<benchmark><entries>
<entry category="A" eid="Id1" size="1">
<originaltripleset><otriple>no | no | no</otriple></originaltripleset>
<modifiedtripleset><mtriple>New_York | country | USA</mtriple></modifiedtripleset>
<lex comment="good" lid="Id1">New York is in the USA.</lex>
<lex comment="good" lid="Id2">The USA have
 New York.</lex>
</entry></entries></benchmark>"""


@pytest.fixture
def triples(tmp_path):
    folder = tmp_path / "data/webnlg/webnlg_challenge_2017"
    for name in ("train/1triples/a.xml", "dev/1triples/b.xml"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(XML)
    (folder / "test").mkdir()
    (folder / "test/testdata_with_lex.xml").write_text(XML)
    return dataclasses.replace(WEBNLG, directory=str(tmp_path / "data")), folder


def test_triples_and_their_texts(triples, tmp_path):
    task, folder = triples
    corpus = sources.load(task)
    assert corpus.train.sources == ["New York | country | USA"] * 2
    texts = ("New York is in the USA.", "The USA have New York.")
    assert corpus.train.references == [(texts[0],), (texts[1],)]
    assert corpus.test is not None
    assert corpus.dev.references == corpus.test.references == [texts]
    # As an archive, it is the same.
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:") as tar:
        tar.add(folder, folder.name)
    other = tmp_path / "other/webnlg"
    other.mkdir(parents=True)
    (other / "webnlg_challenge_2017.tar").write_bytes(archive.getvalue())
    packed = sources.load(dataclasses.replace(task, directory=str(tmp_path / "other")))
    assert packed.fingerprint == corpus.fingerprint


def test_triples_that_are_damaged(triples, tmp_path):
    task, folder = triples
    path = folder / "dev/1triples/b.xml"
    for content, message in (
        (XML[:100], r"b.xml: not XML"),
        (XML.replace("New York is in the USA.", " "), "entry 1 has an empty text"),
        (XML.replace("mtriple>", "other>"), "entry 1 has no triples"),
        ("<!DOCTYPE a>" + XML, "a document type is declared"),
        ("<a></a>", "no entries in dev"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            sources.load(task)


# --- DART ---

ENTRIES = [
    {
        "tripleset": [["New_York", "country", "USA"], ["USA", "[TITLE]", "Land"]],
        "annotations": [
            {"source": "a", "text": "New York is in the USA."},
            {"source": "b", "text": " "},
            {"source": "b", "text": "The USA have\n New York."},
        ],
    },
    {
        "tripleset": [["Wine", "ROLE", "Drink"]],
        "annotations": [{"source": "a", "text": "Wine is drunk."}],
    },
]


@pytest.fixture
def dart(tmp_path):
    folder = tmp_path / "data/dart"
    folder.mkdir(parents=True)
    for name in ("train", "dev"):
        path = folder / f"dart-v1.1.1-full-{name}.json"
        path.write_text(json.dumps(ENTRIES))
    # The test split is to be had in XML alone, where it is in JSON too large.
    (folder / "dart-v1.1.1-full-test.xml").write_text(XML)
    return dataclasses.replace(DART, directory=str(tmp_path / "data")), folder


def test_dart_in_json_and_in_xml(dart):
    task, _ = dart
    corpus = sources.load(task)
    first = "New York | country | USA && USA | [TITLE] | Land"
    assert corpus.train.sources == [first, first, "Wine | ROLE | Drink"]
    assert corpus.train.references == [
        ("New York is in the USA.",),
        ("The USA have New York.",),
        ("Wine is drunk.",),
    ]
    assert [len(texts) for texts in corpus.dev.references] == [2, 1]
    assert corpus.test is not None
    assert corpus.test.sources == ["New York | country | USA"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", r"dev\.json: not JSON"),
        ("[" * 100_000, r"dev\.json: not JSON"),
        ("{}", "expected a list of entries"),
        ("[]", "expected a list of entries"),
        ("[1]", "entry 1 is not {"),
        (json.dumps([ENTRIES[0] | {"annotations": []}]), "entry 1 has no texts"),
        (json.dumps([ENTRIES[0] | {"tripleset": []}]), "entry 1 has no triples"),
        (json.dumps([ENTRIES[0] | {"tripleset": [["a", 1]]}]), "entry 1 is not {"),
        (
            json.dumps([ENTRIES[0] | {"annotations": [{"text": " "}]}]),
            "entry 1 has an empty text",
        ),
    ],
)
def test_dart_that_is_damaged(dart, content, message):
    task, folder = dart
    (folder / "dart-v1.1.1-full-dev.json").write_text(content)
    with pytest.raises(UserError, match=message):
        sources.load(task)


# --- words ---


@pytest.fixture
def words(tmp_path):
    folder = tmp_path / "data/CB"
    folder.mkdir(parents=True)
    labels = ("entailment", "contradiction", "neutral")
    rows = [
        {"premise": f"p {i}.", "hypothesis": f"h {i}", "label": labels[i % 3]}
        for i in range(12)
    ]
    for name in ("train", "val"):
        (folder / f"{name}.jsonl").write_text(
            "".join(f"{json.dumps(r)}\n" for r in rows)
        )
    return dataclasses.replace(
        CB_WORDS, tokenizer=ByteBPE(size=400), widths=(32, 64),
        directory=str(tmp_path / "data"),
    )  # fmt: skip


def test_a_class_is_a_word(words, tmp_path):
    data = prepared(words, tmp_path)
    np.testing.assert_array_equal(data.dev.references, np.arange(12) % 3)
    rows = data.dev.inputs(np.arange(3))
    np.testing.assert_array_equal(rows["labels"][:, 0], rows["label_words"][0])
    assert [data.dev.tokenizer.id_to_token(i) for i in data.dev.words] == [
        "ĠYes", "ĠNo", "ĠMaybe"
    ]  # fmt: skip
    assert rows["target_mask"].shape == (3, 1)
    source = data.dev.decode(rows["tokens"][1][rows["token_mask"][1]].tolist())
    assert source == (
        'Suppose that p 1. Can we infer that "h 1"? Yes, No, or Maybe? Answer:'
    )
    assert words.prompts(data.dev, tmp_path, 3) is None


def test_what_a_word_is_ranked_by(words, tmp_path):
    data = prepared(words, tmp_path)
    rows = data.dev.inputs(np.arange(12))
    logits = np.random.default_rng(0).normal(size=(12, 1, data.vocab_size))
    batch = {name: jnp.asarray(values) for name, values in rows.items()}
    kept = np.asarray(words.target.keep(jnp.asarray(logits), batch))
    for c, token in enumerate(data.dev.words):
        np.testing.assert_allclose(kept[:, c], logits[:, 0, token], rtol=1e-6)
    found = words.target.scores(kept, data.dev.references)
    right = logits[:, 0][:, list(data.dev.words)].argmax(axis=1) == np.arange(12) % 3
    assert found["accuracy"] == pytest.approx(right.mean())


def test_words_that_are_no_words(words, tmp_path):
    with pytest.raises(ValueError, match="a word for each of the 3 classes of CB"):
        dataclasses.replace(words, words_of_classes=("Yes", "No"))
    with pytest.raises(ValueError, match="template takes 2 texts"):
        as_words(CB, "{0} {1} {2}", ("a", "b", "c"))
    long = dataclasses.replace(words, words_of_classes=("Yes", "No", "Unforeseen"))
    with pytest.raises(UserError, match=r"' Unforeseen' is \d+ tokens of the vocab"):
        prepared(dataclasses.replace(long, tokenizer=ByteBPE(size=270)), tmp_path)
    same = dataclasses.replace(words, words_of_classes=("Yes", "No", "No"))
    with pytest.raises(UserError, match="two label words are one token"):
        prepared(same, tmp_path / "same")
