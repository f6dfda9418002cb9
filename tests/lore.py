"""Whole runs on texts of eight words, each a few seconds long."""

import numpy as np

from kd.data.byte_bpe import ByteBPE
from kd.data.language import LanguageTask
from kd.divergences import PerToken
from kd.experiment import Experiment
from kd.models.llama import Llama
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def task_in(directory, num_lines=120):
    """Lines of words in a vocabulary of 273, in texts of 16 tokens."""
    random = np.random.default_rng(0)
    words = ["ka", "to", "mi", "su", "re", "no", "ha", "yo"]
    lines = [" ".join(random.choice(words, 8)) + ".\n" for _ in range(num_lines)]
    (directory / "lore").mkdir(parents=True)
    (directory / "lore/all.txt").write_text("".join(lines))
    return LanguageTask(
        name="lore",
        files=("all.txt",),
        tokenizer=ByteBPE(size=280),
        length=16,
        directory=str(directory),
    )


def recipe_in(directory):
    """What trains a language model of a layer on them."""
    return Experiment(
        data=task_in(directory),
        student=Llama(
            num_layers=1, width=16, num_heads=2, num_key_value_heads=1, head_width=8,
            mlp_width=16, max_length=32,
        ),
        objective=1.0 * PerToken(CrossEntropy()),
        optimizer=AdamW(learning_rate=1e-2),
        batch_size=16,
        num_steps=20,
        save_every=6,
        log_every=1,
    )  # fmt: skip
