import hashlib
import re
from itertools import pairwise

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from kd.data import sentiment


@pytest.fixture(scope="module")
def train() -> tuple[tuple[str, int], ...]:
    return sentiment.corpus()[0]


@pytest.fixture(scope="module")
def dev() -> tuple[tuple[str, int], ...]:
    return sentiment.corpus()[1]


@pytest.fixture(scope="module")
def label_of(train, dev) -> dict[str, int]:
    return {sentence.removesuffix(" ."): label for sentence, label in train + dev}


def word_pairs(sentence: str) -> set[tuple[str, str]]:
    return set(pairwise(sentence.split()))


def test_corpus_is_pinned(train, dev):
    # Results on other sentences are not comparable: changing this digest is a
    # breaking change, to be named in the changelog.
    digest = hashlib.sha256()
    for split in (train, dev):
        for sentence, label in split:
            digest.update(f"{label}\t{sentence}\n".encode())
    assert digest.hexdigest() == (
        "72d2b3ce35387bbad246818a17fa8d6561a3d9d7f49fd78b4c83f83d9b58fe2a"
    )


def test_sizes_and_balance(train, dev):
    assert (len(train), len(dev)) == (6000, 800)
    for split in (train, dev):
        assert [label for _, label in split] == [0, 1] * (len(split) // 2)


def test_no_sentence_occurs_twice(train, dev):
    sentences = [sentence for sentence, _ in train + dev]
    assert len(set(sentences)) == len(sentences)


def test_looks_like_sst2(train, dev):
    for sentence, _ in train + dev:
        assert re.fullmatch(r"[a-z]+( ([a-z]+|[,.:]))*", sentence), sentence
    lengths = [len(sentence.split()) for sentence, _ in train]
    assert min(lengths) == 3
    assert max(lengths) == 30
    assert 9 < sum(lengths) / len(lengths) < 10


def test_second_half_of_dev_has_word_pairs_unseen_in_train(train, dev):
    seen = set().union(*(word_pairs(sentence) for sentence, _ in train))
    assert all(word_pairs(sentence) - seen for sentence, _ in dev[400:])


def test_every_word_of_dev_is_in_train(train, dev):
    words = {word for sentence, _ in train for word in sentence.split()}
    assert {word for sentence, _ in dev for word in sentence.split()} <= words


THING = r"(?:it|the \w+(?: \w+)?)"


@pytest.mark.parametrize(
    ("pattern", "flips"),
    [
        (THING + r" is (?:very |truly )?(\w+)", False),
        (THING + r" is (?:not|never|hardly|far from|anything but) (\w+)", True),
        (THING + r" is less (\w+) than (?:the|its|most) \w+", True),
        (THING + r" is more (\w+) than (?:the|its|most) \w+", False),
        (r"neither \w+ nor (\w+)", True),
        (r"(\w+) without being \w+", False),
    ],
)
def test_word_decides_by_what_governs_it(train, dev, pattern, flips):
    positive, negative = (
        set(words.split()) for words in sentiment.SENTIMENT["adjective"]
    )
    checked = 0
    for sentence, label in train + dev:
        match = re.fullmatch(pattern + r"(?: \.)?", sentence)
        if match and match[1] in positive | negative:
            assert label == ((match[1] in positive) != flips), sentence
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize(
    "pattern",
    [
        r"although (?P<side>.+) , (?P<main>.+) \.",
        r"(?P<main>.+) , although (?P<side>.+) \.",
        r"(?P<side>.+) , but (?P<main>.+) \.",
    ],
)
def test_main_clause_decides(train, dev, label_of, pattern):
    checked = 0
    for sentence, label in train + dev:
        match = re.fullmatch(pattern, sentence)
        if match and match["main"] in label_of:
            assert label_of[match["main"]] == label, sentence
            checked += 1
        if match and match["side"] in label_of:
            assert label_of[match["side"]] != label, sentence
            checked += 1
    assert checked >= 10


def test_every_slot_of_the_grammar_is_defined_and_used():
    defined = {*sentiment.GRAMMAR, *sentiment.NEUTRAL, *sentiment.SENTIMENT, "verbs"}
    slots = {
        word
        for rules in sentiment.GRAMMAR.values()
        for rule in rules
        for word in rule.split()
        if word[0] in "+-="
    }
    assert {slot[1:] for slot in slots} | {"text"} == defined
    assert {slot[1:] for slot in slots if slot[0] == "="} == set(sentiment.NEUTRAL)


@pytest.mark.slow
def test_counting_words_is_not_enough(train, dev):
    # The numbers in the module's docstring.
    def accuracy(longest: int) -> float:
        counts = CountVectorizer(ngram_range=(1, longest), token_pattern=r"\S+")
        features = counts.fit_transform(sentence for sentence, _ in train)
        model = LogisticRegression(solver="liblinear")
        model.fit(features, [label for _, label in train])
        unseen = counts.transform(sentence for sentence, _ in dev)
        return float(model.score(unseen, [label for _, label in dev]))

    assert accuracy(1) == pytest.approx(0.68, abs=0.01)
    assert accuracy(3) == pytest.approx(0.74, abs=0.01)
