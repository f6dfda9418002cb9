"""Published mixes of losses over layers, as the sums that they are."""

from typing import Literal

import optax

from kd.features.attention import AttentionMSE
from kd.features.directions import NormalizedMSE
from kd.features.hints import Hints
from kd.features.layers import Read
from kd.features.over_layers import OverLayers, skip
from kd.features.probabilistic import PKT
from kd.objective import Mix


def pkd(
    num_student_layers: int,
    num_teacher_layers: int,
    *,
    strategy: Literal["skip", "last"] = "skip",
) -> OverLayers:
    """Patient distillation: directions of [CLS] in all layers but the last.

    The student's layers 1, ..., K - 1 follow the teacher's at even distances ("skip":
    of 12 for 6 the layers 2, 4, 6, 8, 10) or those before its last ("last": 7, ...,
    11). The last layer learns through the logits.

    Source: sun2019patient, beside (1 - alpha) CE + alpha KD. Its equation sums over
    layers; its code takes the mean, as here, and over the width as well.

    Raises:
        ValueError: the student has no layer but the last, or more than the teacher.
    """
    if not 2 <= num_student_layers <= num_teacher_layers:
        raise ValueError(
            "pkd needs a student of at least 2 layers and no more than the teacher's "
            f"{num_teacher_layers}, got {num_student_layers}"
        )
    ours = tuple(range(1, num_student_layers))
    if strategy == "skip":
        theirs = skip(num_student_layers, num_teacher_layers)["teacher_layers"][:-1]
    else:
        theirs = tuple(k + num_teacher_layers - num_student_layers for k in ours)
    return OverLayers(loss=NormalizedMSE(), student_layers=ours, teacher_layers=theirs)


def tinybert(
    num_student_layers: int,
    num_teacher_layers: int,
    *,
    heads: Literal["each", "mean"] = "each",
) -> Mix:
    """Layer-wise distillation of transformers: embeddings, hidden states, attention.

    Layer k of the student follows layer k L / K of the teacher, embeddings the
    embeddings.

    Source: jiao2020tinybert, without the loss of predictions. Losses are means over
    layers here, sums there; all hidden states share one projection there, and
    attention is compared before the softmax.
    """
    blocks = skip(num_student_layers, num_teacher_layers)
    hidden = {name: (0, *layers) for name, layers in blocks.items()}
    attention = OverLayers(loss=AttentionMSE(heads=heads), **blocks)
    return OverLayers(loss=Hints(), **hidden) + attention


def information_flow(
    student_layers: tuple[int, ...],
    teacher_layers: tuple[int, ...],
    *,
    steps_per_epoch: int,
    weight: float = 100.0,
    decay: float = 0.7,
    read: Read = "mean",
) -> Mix:
    """Neighbourhoods in all layers, the lower ones early in training above all.

        PKT(last layers) + sum_k weight decay^epoch PKT(layers a_k, b_k)

    What a network learns first shapes what it can learn later (its critical period), so
    the flow of information through its layers is supervised then.

    Args:
        student_layers: the lower layers of the student, and
        teacher_layers: of the teacher, or of an auxiliary network like the student.
        steps_per_epoch: optimizer steps.
        weight: of the lower layers in the first epoch.
        decay: of that weight from epoch to epoch.
        read: how positions become a vector: "mean", "first" or "all".

    Source: passalis2020heterogeneous. The code takes 1/m of this for batches
    of m examples, all positions of feature maps, trains on no labels, and starts the
    optimizer anew every epoch.
    """
    pkt = PKT(kernel="both", divergence="jeffreys", read=read)
    lower = OverLayers(
        loss=pkt,
        student_layers=student_layers,
        teacher_layers=teacher_layers,
        weights=(1.0,) * len(student_layers),
    )
    fading = optax.exponential_decay(weight, steps_per_epoch, decay, staircase=True)
    return pkt + fading * lower
