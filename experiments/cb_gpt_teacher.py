"""CB as text: the teacher, a decoder whose next word is the answer.

Paper scale is GPT-2 medium for the GPT-Neo of cui2024sinkhorn, whose checkpoints are of
an architecture that is not here; small scale SmolLM2-135M. Mini scale trains a Llama
from scratch on 250 texts, which shows that all runs, and little else.

    make exp NAME=cb_gpt_teacher DATA_DIR=~/data
"""

import dataclasses

from experiments import wikitext_teacher
from kd.data.byte_bpe import ByteBPE
from kd.data.words import CB_WORDS, WordsTask
from kd.divergences import PerToken
from kd.experiment import Experiment, Network, Scale
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: WordsTask = CB_WORDS) -> Experiment:
    """The words of the classes alone; other tasks of words take the same recipe."""
    objective = 1.0 * PerToken(CrossEntropy())
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(task, widths=(192, 448)),
            student=None,
            start=Network(place="openai-community/gpt2-medium"),
            objective=objective,
            optimizer=AdamW(learning_rate=1e-4, weight_decay=0.01),
            batch_size=4,
            num_epochs=10,
        )
    if scale == "small":
        return Experiment(
            data=dataclasses.replace(task, widths=(128, 256), too_long="cut"),
            student=None,
            start=wikitext_teacher.SMOLLM2,
            objective=objective,
            optimizer=AdamW(learning_rate=5e-5, warmup=0.1, weight_decay=0.01),
            batch_size=8,
            num_epochs=5,
        )
    llama = dataclasses.replace(
        wikitext_teacher.mini(num_layers=2, width=128), max_length=512
    )
    return Experiment(
        data=dataclasses.replace(task, tokenizer=ByteBPE(size=2048), widths=(128, 384)),
        student=llama,
        objective=objective,
        optimizer=AdamW(learning_rate=1e-3, warmup=0.1, weight_decay=0.1),
        batch_size=16,
        num_epochs=8,
    )
