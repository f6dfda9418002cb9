"""A decoder-only network that is given sources and targets, as encoder-decoders are."""

import jax.numpy as jnp

from kd.types import Batch, Model, Outputs, Params


def after_sources(model: Model) -> Model:
    """The network on source and target in one row, asked about the target alone.

    A batch holds `tokens` and `token_mask` [b, n], the sources, at least one token
    each, and `target_tokens` and `target_mask` [b, m]. Entry j of the logits,
    [b, m, v], is about target token j, given the source and the targets before it;
    padding changes nothing; that of targets is on the right. `Outputs.hidden`
    [b, m, d] is of the positions that predict. Attention is not exposed. It writes as
    before.

    Args:
        model: of `kd.models.causal.language_model`.
    """

    def apply(params: Params, batch: Batch, key) -> Outputs:
        # Padding first, so that the last column holds the last token of every source.
        order = jnp.argsort(batch["token_mask"], axis=1, stable=True)
        joined = {
            name: jnp.concatenate(
                [
                    jnp.take_along_axis(batch[name], order, axis=1),
                    # Nothing is predicted from the last one.
                    batch[target][:, :-1],
                ],
                axis=1,
            )
            for name, target in (
                ("tokens", "target_tokens"),
                ("token_mask", "target_mask"),
            )
        }
        outputs = model.apply(params, joined, key)
        first = batch["tokens"].shape[1] - 1
        head = outputs.head
        return Outputs(
            outputs.logits[:, first:],
            tuple(x[:, first:] for x in outputs.hidden),
            head=head and head.replace(hidden=head.hidden[:, first:]),
        )

    return model._replace(apply=apply)
