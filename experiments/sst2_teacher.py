"""SST-2: the teacher, fine-tuned on the labels.

Paper scale is the teacher of cui2024sinkhorn: BERT-base, batch 16, 10 epochs, 2e-5,
linear decay without warm-up. Small scale fine-tunes MiniLM, 6 layers of width 384, for
4,000 batches: dev accuracy 90.37 % in 21 minutes on two shared CPU cores, seed 0, the
better of two learning rates (5e-5: 89.33 %). Mini scale trains a two-layer BERT from
scratch.

The experiments that distil from it train it by themselves the first time they need
it; run on its own it leaves a run directory like any other.

    make exp NAME=sst2_teacher
"""

import dataclasses

from kd.data.glue import SST2
from kd.data.sentences import TextTask
from kd.data.text import WordPiece
from kd.experiment import Experiment, Network, Scale
from kd.models.bert import Bert
from kd.objective import CrossEntropy, Mix, SquaredError
from kd.train.optimizer import AdamW

MINILM = Network(place="sentence-transformers/all-MiniLM-L6-v2")
"""BERT, 6 layers of width 384 (wang2020minilm), trained further for similarity."""


def experiment(scale: Scale, task: TextTask = SST2, *, length: int = 64) -> Experiment:
    """Labels alone; other tasks of text take the same recipe.

    Args:
        scale: of the networks.
        task: what is learnt.
        length: tokens that the longest examples are cut to, below paper scale.
    """
    widths = tuple(width for width in (8, 16, 32, 64, 128, 256) if width <= length)
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(task, widths=(16, 32, 64, 128)),
            student=Bert.base(),
            start=Network(place="bert-base-uncased"),
            objective=on_targets(task),
            optimizer=AdamW(learning_rate=2e-5),
            batch_size=16,
            num_epochs=10,
        )
    # Smaller data sets are seen as often as their papers do.
    large = task is SST2
    if scale == "small":
        return Experiment(
            data=dataclasses.replace(task, widths=widths),
            student=None,
            start=MINILM,
            objective=on_targets(task),
            optimizer=AdamW(learning_rate=1e-4, warmup=0.1, weight_decay=0.01),
            batch_size=32,
            num_steps=4000 if large else 0,
            num_epochs=0 if large else 5,
            evaluate_every=1000 if large else 0,
        )
    return Experiment(
        data=dataclasses.replace(task, tokenizer=WordPiece(size=8192), widths=widths),
        student=Bert.tiny(max_length=length),
        objective=on_targets(task),
        optimizer=AdamW(learning_rate=1e-3, warmup=0.1, weight_decay=0.01),
        batch_size=32,
        num_steps=4000 if large else 0,
        num_epochs=0 if large else 10,
        evaluate_every=500 if large else 0,
    )


def on_targets(task: TextTask) -> Mix:
    """The loss on what the data say: cross-entropy, or squared error of a number."""
    if task.target.has_classes:
        return 1.0 * CrossEntropy()
    return 1.0 * SquaredError()
