"""Text classification tasks, described by where their parts are found.

One constant per task. The task files are those of the GLUE download
(gluebenchmark.com), the TFDS names those of `tensorflow_datasets.text.glue`.
`kd.data.sources.load` turns a task into records.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask:
    """A classification of sentences or of pairs of sentences.

    Numbers, strings and tuples only, so that a run can be recorded as JSON.
    """

    name: str
    """As the field writes it; also the task's folder in the official layout."""
    labels: tuple[str, ...]
    """Class names; class `i` is `labels[i]`, and files may spell it either way."""
    columns: tuple[str, ...]
    """TSV columns that hold the text: one, or two for pairs."""
    label_column: str
    tfds: str
    """The data set's name in TFDS."""
    tfds_features: tuple[str, ...]
    """TFDS features that hold the text, in the order of `columns`."""
    tfds_splits: tuple[str, str] = ("train", "validation")
    url: str
    """What TFDS downloads: asked first whether it answers, since TFDS itself takes
    minutes to find out that it does not."""
    bundled: Literal["", "sentiment"] = ""
    """The corpus in `kd.data` that stands in where the task cannot be had."""

    source: Literal["auto", "local", "tfds", "bundled"] = "auto"
    """Where to load from. "auto": `directory` if it is given, else TFDS, else, if
    TFDS fails, the bundled corpus."""
    directory: str = ""
    """A folder in the official layout, <directory>/<name>/train.tsv (DATA_DIR)."""

    @property
    def num_classes(self) -> int:
        return len(self.labels)


SST2 = TextTask(
    name="SST-2",
    labels=("negative", "positive"),
    columns=("sentence",),
    label_column="label",
    tfds="glue/sst2",
    tfds_features=("sentence",),
    url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
    bundled="sentiment",
)
"""Film reviews as negative or positive: 67,349 phrases, 872 dev sentences.

Source: socher2013recursive, as split by wang2019glue; scored by accuracy.
"""
