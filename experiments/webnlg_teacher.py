"""WebNLG: the teacher, a decoder that puts triples into words.

It goes on after the triples, and learns the text alone. Paper scale fine-tunes GPT-2
medium; small scale SmolLM2-135M. Mini scale trains a Llama of 4 layers x 256 from
scratch, which learns the triples' words but copies few names that it has not seen.

    make exp NAME=webnlg_teacher DATA_DIR=~/data
"""

import dataclasses

from experiments import wikitext_teacher
from kd.data.byte_bpe import ByteBPE
from kd.data.webnlg import WEBNLG
from kd.data.writing import WritingTask
from kd.divergences import PerToken
from kd.experiment import Experiment, Network, Scale
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale, task: WritingTask = WEBNLG) -> Experiment:
    """Texts alone; other tasks of triples take the same recipe."""
    objective = 1.0 * PerToken(CrossEntropy())
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(
                task, widths=(64, 256), target_widths=(64, 192), num_beams=5
            ),
            student=None,
            start=Network(place="openai-community/gpt2-medium"),
            objective=objective,
            optimizer=AdamW(learning_rate=5e-5, warmup=0.1),
            batch_size=16,
            num_epochs=5,
        )
    if scale == "small":
        return Experiment(
            data=dataclasses.replace(
                task, widths=(48, 128), target_widths=(40, 80), too_long="cut",
                dev_examples=64,
            ),
            student=None,
            start=wikitext_teacher.SMOLLM2,
            objective=objective,
            optimizer=AdamW(learning_rate=1e-4, warmup=0.1),
            batch_size=8,
            num_steps=600,
            evaluate_every=300,
        )  # fmt: skip
    return Experiment(
        data=dataclasses.replace(
            task, tokenizer=ByteBPE(size=4096), widths=(40, 96),
            target_widths=(40, 72), too_long="cut", dev_examples=256,
        ),
        student=wikitext_teacher.mini(num_layers=4, width=256),
        objective=objective,
        optimizer=AdamW(learning_rate=2e-3, warmup=0.1, weight_decay=0.1),
        batch_size=32,
        num_steps=800,
        evaluate_every=400,
    )  # fmt: skip
