"""What is found out before a network is trained that others are made from."""

import dataclasses
import pathlib
import shutil

import pytest
from conftest import tiny_experiment

from kd import run
from kd.data.sentences import TextTask
from kd.errors import UserError
from kd.experiment import Network
from kd.objective import CrossEntropy
from kd.run.obtain import check_places

TINY_BERT = pathlib.Path(__file__).parents[1] / "golden" / "tiny_bert"


@pytest.fixture
def put(tmp_path):
    """A BERT in a folder of this name, with a vocabulary of these letters."""

    def put(name, letters):
        place = tmp_path / name
        shutil.copytree(TINY_BERT, place)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
        (place / "vocab.txt").write_text("\n".join(words) + "\n")
        return str(place)

    return put


def begun(place):
    return dataclasses.replace(fresh(), student=None, start=Network(place=place))


def taught(experiment, recipe):
    return dataclasses.replace(experiment, teachers=(Network(recipe=recipe),))


def fresh():
    tiny = tiny_experiment(widths=(16,))
    return dataclasses.replace(tiny, teachers=(), objective=1.0 * CrossEntropy())


def of_vocabulary(place):
    recipe = fresh()
    assert isinstance(recipe.data, TextTask)
    tokenizer = dataclasses.replace(recipe.data.tokenizer, vocabulary=place)
    return dataclasses.replace(
        recipe, data=dataclasses.replace(recipe.data, tokenizer=tokenizer)
    )


@pytest.mark.parametrize(
    "recipe_of",
    [
        begun,
        of_vocabulary,
        lambda place: taught(begun(place), begun(place)),
        lambda place: taught(fresh(), of_vocabulary(place)),
    ],
)
def test_another_tokenizer_is_found_before_the_teacher_is_trained(
    put, tmp_path, place, recipe_of
):
    first, same, other = put("first", "abc"), put("same", "abc"), put("other", "abd")
    check_places(taught(begun(same), recipe_of(first)), tmp_path / "run")
    with pytest.raises(UserError) as refused:
        run.run(taught(begun(other), recipe_of(first)), "run", place.workspace)
    assert str(refused.value) == (
        f"{other}: its tokenizer or normalization is not that of {first}; all networks "
        "of a run must see the same inputs"
    )
    assert not place.workspace.runs.exists()


def test_a_tokenizer_that_is_yet_to_be_made_is_none_to_compare(put, tmp_path):
    check_places(taught(begun(put("first", "abc")), fresh()), tmp_path / "run")
