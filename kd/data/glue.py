"""The tasks of GLUE (wang2019glue), one constant each.

The files are those of the GLUE download (gluebenchmark.com), the TFDS names those of
`tensorflow_datasets.text.glue`.
"""

from kd.data.sentences import TextTask
from kd.evaluate.classes import ACCURACY, F1, MCC, Classes
from kd.evaluate.number import Number

SST2 = TextTask(
    name="SST-2",
    target=Classes(("negative", "positive")),
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

COLA = TextTask(
    name="CoLA",
    target=Classes(("unacceptable", "acceptable"), official=(MCC,)),
    header=("source", "label", "mark", "sentence"),
    columns=("sentence",),
    label_column="label",
    tfds="glue/cola",
    tfds_features=("sentence",),
    url="https://dl.fbaipublicfiles.com/glue/data/CoLA.zip",
)
"""Whether a sentence is acceptable English: 8,551 sentences, 1,043 of dev.

Of dev 69 % are acceptable. 16 dev sentences also occur in train, as published.

Source: warstadt2019neural, as split by wang2019glue; scored by Matthews correlation.
"""

MRPC = TextTask(
    name="MRPC",
    target=Classes(("not_equivalent", "equivalent"), official=(F1, ACCURACY)),
    columns=("#1 String", "#2 String"),
    label_column="Quality",
    tfds="glue/mrpc",
    tfds_features=("sentence1", "sentence2"),
    url="https://dl.fbaipublicfiles.com/glue/data/MRPC.zip",
)
"""Whether two sentences of the news say the same: 3,668 pairs, 408 of dev.

68 % of dev are equivalent. Source: dolan2005automatically, as split by wang2019glue;
scored by F1 of the equivalent ones, and accuracy.
"""

RTE = TextTask(
    name="RTE",
    target=Classes(("entailment", "not_entailment")),
    columns=("sentence1", "sentence2"),
    label_column="label",
    tfds="glue/rte",
    tfds_features=("sentence1", "sentence2"),
    url="https://dl.fbaipublicfiles.com/glue/data/RTE.zip",
)
"""Whether the first sentence entails the second: 2,490 pairs, 277 of dev.

Source: dagan2006pascal and its successors, as joined by wang2019glue; scored by
accuracy.
"""

STSB = TextTask(
    name="STS-B",
    target=Number(0.0, 5.0, title="similarity"),
    columns=("sentence1", "sentence2"),
    label_column="score",
    tfds="glue/stsb",
    tfds_features=("sentence1", "sentence2"),
    url="https://dl.fbaipublicfiles.com/glue/data/STS-B.zip",
)
"""How alike two sentences are, from 0 to 5: 5,749 pairs, 1,500 of dev.

Source: cer2017semeval, as split by wang2019glue; scored by Pearson and Spearman
correlation.
"""

WNLI = TextTask(
    name="WNLI",
    target=Classes(("not_entailment", "entailment")),
    columns=("sentence1", "sentence2"),
    label_column="label",
    tfds="glue/wnli",
    tfds_features=("sentence1", "sentence2"),
    url="https://dl.fbaipublicfiles.com/glue/data/WNLI.zip",
)
"""Whether a pronoun means what the second sentence says: 635 pairs, 71 of dev.

Dev repeats sentences of train with the other label, so that what is learnt by heart
scores below chance; the larger class of dev scores 56.3 %.

Source: levesque2012winograd, as turned into pairs by wang2019glue; scored by accuracy.
"""

QNLI = TextTask(
    name="QNLI",
    target=Classes(("entailment", "not_entailment")),
    columns=("question", "sentence"),
    label_column="label",
    tfds="glue/qnli",
    tfds_features=("question", "sentence"),
    url="https://dl.fbaipublicfiles.com/glue/data/QNLIv2.zip",
)
"""Whether a sentence answers a question: 104,743 pairs, 5,463 of dev.

Source: rajpurkar2016squad, as turned into pairs by wang2019glue; scored by accuracy.
"""
