"""Books: pretraining a language model from text, for those without a hub.

43 English novels, 34 MB. What it yields can be a start, or a teacher:
`ARGS=start=runs/books_lm/0`. Paper scale has no paper: it is GPT-2's smallest network
from scratch. Below, a Llama of 6 layers x 256, one pass over a fifth of the text at
mini scale and over all of it at small scale.

    make exp NAME=books_lm DATA_DIR=~/data
"""

import dataclasses

from experiments import wikitext_teacher
from kd.data.byte_bpe import ByteBPE
from kd.data.language import BOOKS
from kd.divergences import PerToken
from kd.experiment import Experiment, Scale
from kd.models.gpt2 import GPT2
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale) -> Experiment:
    """Text alone."""
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(BOOKS, tokenizer=ByteBPE(size=16384), length=1024),
            student=GPT2.small(),
            objective=1.0 * PerToken(CrossEntropy()),
            optimizer=AdamW(learning_rate=6e-4, warmup=0.05, weight_decay=0.1),
            batch_size=32,
            num_epochs=10,
        )
    return Experiment(
        data=dataclasses.replace(
            BOOKS, tokenizer=ByteBPE(size=8192), length=128, dev_rows=512,
            fraction=0.2 if scale == "mini" else 1.0,
        ),
        student=wikitext_teacher.mini(num_layers=6, width=256),
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(learning_rate=1e-3, warmup=0.05, weight_decay=0.1),
        batch_size=32,
        num_epochs=1,
        evaluate_every=500,
    )  # fmt: skip
