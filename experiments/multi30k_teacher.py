"""Multi30k: the teacher, an encoder-decoder that translates English into German.

Paper scale fine-tunes T5-base; below it is trained from scratch, 3 + 3 layers of width
256, with a byte-level vocabulary of both languages.

    make exp NAME=multi30k_teacher DATA_DIR=~/data
"""

import dataclasses

from kd.data.byte_bpe import ByteBPE
from kd.data.parallel import MULTI30K
from kd.divergences import PerToken
from kd.experiment import Experiment, Network, Scale
from kd.models.t5 import T5
from kd.objective import CrossEntropy
from kd.train.optimizer import AdamW


def experiment(scale: Scale) -> Experiment:
    """Translations alone."""
    objective = 1.0 * PerToken(CrossEntropy())
    if scale == "paper":
        return Experiment(
            data=dataclasses.replace(
                MULTI30K, source_format="translate English to German: {}",
                target_format="{}", widths=(32, 96), target_widths=(32, 96),
                too_long="cut", num_beams=5,
            ),
            student=None,
            start=Network(place="google-t5/t5-base"),
            objective=objective,
            optimizer=AdamW(learning_rate=1e-4, warmup=0.1),
            batch_size=64,
            num_epochs=10,
        )  # fmt: skip
    return Experiment(
        data=dataclasses.replace(
            MULTI30K, tokenizer=ByteBPE(size=4096), widths=(20, 48),
            target_widths=(24, 56), too_long="cut", dev_examples=256,
        ),
        student=mini(num_layers=3, width=256),
        objective=objective,
        optimizer=AdamW(learning_rate=2e-3, warmup=0.1, weight_decay=0.01),
        batch_size=32,
        num_steps=6000 if scale == "small" else 1200,
        evaluate_every=600,
    )  # fmt: skip


def mini(*, num_layers: int, width: int) -> T5:
    """A small T5 with as many layers to read as to write, and heads of width 32."""
    return T5(
        num_layers=num_layers,
        num_decoder_layers=num_layers,
        width=width,
        num_heads=width // 32,
        head_width=32,
        mlp_width=3 * width,
        gated=True,
    )
