"""The tasks of SuperGLUE (wang2019superglue) that an encoder can do, one constant each.

The files are those of the SuperGLUE download (super.gluebenchmark.com), the TFDS names
those of `tensorflow_datasets.text.super_glue`.
"""

from kd.data.choices import ChoiceTask
from kd.data.sentences import TextTask
from kd.evaluate.classes import ACCURACY, MACRO_F1, Classes

_FILES = ("train.jsonl", "val.jsonl")
_URL = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/"

CB = TextTask(
    name="CB",
    target=Classes(
        ("entailment", "contradiction", "neutral"), official=(MACRO_F1, ACCURACY)
    ),
    files=_FILES,
    columns=("premise", "hypothesis"),
    label_column="label",
    tfds="super_glue/cb",
    tfds_features=("premise", "hypothesis"),
    url=_URL + "CB.zip",
)
"""Whether a text commits its author to a clause in it: 250 pairs, 56 of dev.

Source: demarneffe2019commitmentbank; scored by F1 averaged over the three classes, and
accuracy. Six in a hundred are neutral, so one dev example of that class moves its F1 by
ten points or more.
"""

BOOLQ = TextTask(
    name="BoolQ",
    target=Classes(("no", "yes"), written=("false", "true")),
    files=_FILES,
    columns=("question", "passage"),
    label_column="label",
    tfds="super_glue/boolq",
    tfds_features=("question", "passage"),
    url=_URL + "BoolQ.zip",
)
"""Whether the answer to a question about a passage is yes: 9,427 and 3,270 of dev.

62 % of dev are yes. Source: clark2019boolq; scored by accuracy.
"""

WIC = TextTask(
    name="WiC",
    target=Classes(("different", "same"), written=("false", "true")),
    files=_FILES,
    columns=("word+sentence1", "word+sentence2"),
    label_column="label",
    tfds="super_glue/wic",
    tfds_features=("word+sentence1", "word+sentence2"),
    url=_URL + "WiC.zip",
)
"""Whether a word means the same in two sentences: 5,428 pairs, 638 of dev.

The word stands before each sentence; where in the sentence it occurs is not told.

Source: pilehvar2019wic; scored by accuracy. Half of dev are the same.
"""

WSC = TextTask(
    name="WSC",
    target=Classes(("no", "yes"), written=("false", "true")),
    files=_FILES,
    columns=("text", "target.span2_text+target.span1_text"),
    label_column="label",
    tfds="super_glue/wsc",
    tfds_features=("text", "span2_text+span1_text"),
    url=_URL + "WSC.zip",
)
"""Whether a pronoun means a noun: 554 texts, 104 of dev.

The second sentence is the pronoun and the noun. 63 % of dev are no.

Source: levesque2012winograd; scored by accuracy.
"""

COPA = ChoiceTask(
    name="COPA",
    target=Classes(("first", "second")),
    files=_FILES,
    columns=("question+premise", "choice1", "choice2"),
    label_column="label",
    tfds="super_glue/copa",
    tfds_features=("question+premise", "choice1", "choice2"),
    url=_URL + "COPA.zip",
)
"""Which of two is the cause, or the effect, of something: 400, and 100 of dev.

The question, "cause" or "effect", stands before the premise.

Source: roemmele2011choice; scored by accuracy.
"""
