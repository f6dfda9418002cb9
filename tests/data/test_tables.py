import dataclasses

import numpy as np
import pytest

from kd.data import sources
from kd.data.tables import GTZAN, TableTask
from kd.errors import UserError
from kd.evaluate.classes import Classes

SHAPES = TableTask(
    name="shapes", file="shapes.csv", ignored=("id",), target=Classes(("flat", "round"))
)
HEADER = "id,width,height,label\n"
ROWS = [f"{i},{i}.5,{i % 7},{'flat' if i % 2 else 'round'}\n" for i in range(60)]


def write(directory, content):
    (directory / "shapes").mkdir(exist_ok=True)
    (directory / "shapes" / "shapes.csv").write_text(content)
    return dataclasses.replace(SHAPES, directory=str(directory))


def table(corpus, part):
    split = getattr(corpus, part)
    return {(*row, label) for row, label in zip(split.inputs.tolist(), split.labels)}  # noqa: B905


def test_rows_become_numbers_and_classes(tmp_path):
    corpus = sources.load(write(tmp_path, HEADER + "".join(ROWS)))
    both = table(corpus, "train") | table(corpus, "dev")
    assert both == {(i + 0.5, i % 7, 1 - i % 2) for i in range(60)}
    assert corpus.train.inputs.dtype == np.float32
    assert 4 <= len(corpus.dev) <= 20


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path):
    straight = sources.load(write(tmp_path, HEADER + "".join(ROWS)))
    reverse = sources.load(write(tmp_path, HEADER + "".join(ROWS[::-1])))
    assert table(straight, "dev") == table(reverse, "dev")
    # What is not a feature decides nothing.
    renamed = [row.replace(row.split(",")[0], "x", 1) for row in ROWS]
    again = sources.load(write(tmp_path, HEADER + "".join(renamed)))
    assert table(straight, "dev") == table(again, "dev")


def test_repeated_rows_stay_on_one_side(tmp_path):
    corpus = sources.load(write(tmp_path, HEADER + "".join(ROWS * 3)))
    sides = [{row[:2] for row in table(corpus, part)} for part in ("train", "dev")]
    assert not sides[0] & sides[1]
    assert len(corpus.train) + len(corpus.dev) == 180


def test_equal_numbers_are_equal_whatever_their_bytes(tmp_path):
    rows = [f"0,{i},{zero},flat\n" for i in range(40) for zero in ("0", "-0.0")]
    corpus = sources.load(write(tmp_path, HEADER + "".join(rows)))
    sides = [set(getattr(corpus, part).inputs[:, 0]) for part in ("train", "dev")]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ": no examples"),
        (HEADER, ": no examples"),
        (
            "id,width,label\n1,flat\n",
            ":2: 2 fields; expected 3, 'id', 'width', 'label'",
        ),
        ("width,height\n1,2\n", ":1: the header lacks 'id', 'label'; it has 'width'"),
        (
            HEADER + "1,2,3,flat\n2,2,3,oval\n",
            ":3: label 'oval'; expected 0 to 1 or 'fl",
        ),
        (HEADER + "1,2,wide,flat\n", ":2: height is 'wide'; expected a finite number"),
        (HEADER + "1,2,,flat\n", ":2: height is ''; expected a finite number"),
        (HEADER + "1,nan,3,flat\n", ":2: width is 'nan'; expected a finite number"),
        (HEADER + "1,1e60,3,flat\n", ":2: width is '1e60'; expected a finite number"),
        (HEADER + f"1,2,{'3' * 200_000},flat\n", ":2: field larger than field limit"),
        (HEADER + "1,2,3,flat\n", ": of its 1 rows none falls to "),
    ],
)
def test_malformed_content(tmp_path, content, expected):
    task = write(tmp_path, content)
    with pytest.raises(UserError) as refused:
        sources.load(task)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path}/shapes/shapes.csv{expected}")


def test_it_comes_from_a_folder_only():
    with pytest.raises(UserError) as refused:
        sources.load(GTZAN)
    assert str(refused.value) == (
        "gtzan-features is not in TFDS; DATA_DIR=DIR reads"
        " DIR/gtzan-features/features_30_sec.csv"
    )


def test_dev_share_is_a_share():
    with pytest.raises(ValueError, match="dev_share must be between 0 and 1, got 1"):
        dataclasses.replace(GTZAN, dev_share=1.0)


def test_gtzan_itself(shared_data):
    corpus = sources.load(dataclasses.replace(GTZAN, directory=str(shared_data)))
    assert len(corpus.train) + len(corpus.dev) == 1000
    assert corpus.train.inputs.shape[1] == 57
    everyone = np.concatenate([corpus.train.labels, corpus.dev.labels])
    assert (np.bincount(everyone) == 100).all()
    rows = {
        part: {row.tobytes() for row in part.inputs}
        for part in (corpus.train, corpus.dev)
    }
    train, dev = rows.values()
    assert not train & dev
    assert len(train) + len(dev) == 986  # 14 repeat another
