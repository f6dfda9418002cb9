"""Grids of nine digits, two views, no labels: contrastive predictive coding.

The KL form, the baseline of `multi_mnist_wpc`: a batch of 64 bounds what it can tell of
the 20.7 nats that two views share by ln 64 = 4.2, so it need not recognise more than a
few digits (ozair2019wasserstein, section 3). Linear probes tell how many of the nine
the representation has kept.

Measured at mini scale, seed 0, on two shared CPU cores, an anecdote: probe accuracy
76.11 %, 6.61 of 9 digits, 14.4 of 20.7 nats, in 3 min. The recipe, and that of paper
scale above all, is this project's own.

    make exp NAME=multi_mnist_cpc DATA_DIR=~/data
"""

from kd.data.digit_grids import MULTI_MNIST
from kd.experiment import Experiment, Scale
from kd.features.predictive_coding import InfoNCE
from kd.models.mlp import MLP
from kd.procedures.contrastive import Contrastive
from kd.train.optimizer import AdamW


def experiment(scale: Scale) -> Experiment:
    """InfoNCE with a critic as steep as it likes."""
    paper = scale == "paper"
    return Experiment(
        data=MULTI_MNIST,
        student=MLP(widths=(1024, 1024) if paper else (256,)),
        objective=1.0 * InfoNCE(),
        procedure=Contrastive(),
        optimizer=AdamW(learning_rate=1e-3, warmup=0.05),
        batch_size=64,
        num_steps=100_000 if paper else 3000,
        evaluate_every=10_000 if paper else 1000,
        save_every=1000,
    )
