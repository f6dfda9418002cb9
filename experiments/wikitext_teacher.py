"""WikiText-2: the teacher, a language model trained on text alone.

What is not everywhere to be had is the training split, so by default one learns from
the articles of the validation split, 0.2 M words, but the last tenth, which is dev, and
is scored on test. `ARGS=data.files=train.txt,valid.txt,test.txt` takes the official
splits.

Paper scale is GPT-2's smallest, trained further on the official splits as
radford2019language's followers do. Small scale takes SmolLM2-135M as it is. Mini scale
trains a Llama of 4 layers x 256 from scratch.

    make exp NAME=wikitext_teacher DATA_DIR=~/data
"""

import dataclasses

from kd.data.byte_bpe import ByteBPE
from kd.data.language import WIKITEXT2, WIKITEXT2_HELD_OUT, LanguageTask
from kd.divergences import PerToken
from kd.experiment import Experiment, Network, Scale
from kd.models.llama import Llama
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW

SMOLLM2 = Network(place="HuggingFaceTB/SmolLM2-135M")
"""Llama type, 30 layers of width 576; trained on 2 T tokens."""


def experiment(scale: Scale, task: LanguageTask | None = None) -> Experiment:
    """Text alone; other language tasks take the same recipe."""
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(task or WIKITEXT2, length=1024),
            student=None,
            start=Network(place="openai-community/gpt2"),
            objective=1.0 * PerToken(CrossEntropy()),
            optimizer=AdamW(learning_rate=5e-5, warmup=0.1, weight_decay=0.01),
            batch_size=8,
            num_epochs=3,
        )
    data = task or WIKITEXT2_HELD_OUT
    if scale == "small":
        return Experiment(
            data=dataclasses.replace(data, length=128, dev_rows=64),
            student=None,
            start=SMOLLM2,
            objective=1.0 * PerToken(CrossEntropy()),
            optimizer=AdamW(learning_rate=1e-5, warmup=0.1),
            batch_size=4,
            num_steps=200,
        )
    return Experiment(
        data=dataclasses.replace(data, tokenizer=ByteBPE(size=4096), length=128),
        student=mini(num_layers=4, width=256),
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(learning_rate=2e-3, warmup=0.1, weight_decay=0.1),
        batch_size=16,
        num_epochs=6,
    )


def mini(*, num_layers: int, width: int) -> Llama:
    """A small Llama with heads of width 32, for texts of 256 tokens."""
    return Llama(
        num_layers=num_layers,
        width=width,
        num_heads=width // 32,
        num_key_value_heads=width // 64,
        head_width=32,
        mlp_width=3 * width,
        max_length=256,
        rotary_base=10_000.0,
    )
