"""What transformers calls the parts of a BERT, a DistilBERT and a RoBERTa."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kd.models.bert import Variant


class Table(NamedTuple):
    """The names of one variant."""

    classes: str
    """What transformers' classes of it begin with."""
    modules: Mapping[str, str]
    """By our path to a module, with "{i}" for the number of a layer, its name in the
    model without a head."""
    prefix: str
    """What models with a head put before these names."""
    head: tuple[str, ...]
    """Of `modules`, those that are the head's, and have no prefix."""
    fields: Mapping[str, str]
    """By the field of `Bert`, the key of config.json."""
    head_dropout: str
    """The key of config.json of `Bert.head_dropout`."""
    supported: Mapping[str, Any]
    """By key of config.json, the only value that `Bert` computes; a config.json without
    the key means the same."""


_LAYERS = {
    "layer_{i}/query": "encoder.layer.{i}.attention.self.query",
    "layer_{i}/key": "encoder.layer.{i}.attention.self.key",
    "layer_{i}/value": "encoder.layer.{i}.attention.self.value",
    "layer_{i}/attention_out": "encoder.layer.{i}.attention.output.dense",
    "layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layer_{i}/mlp_in": "encoder.layer.{i}.intermediate.dense",
    "layer_{i}/mlp_out": "encoder.layer.{i}.output.dense",
    "layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
}
_EMBEDDINGS = {
    "embeddings/tokens": "embeddings.word_embeddings",
    "embeddings/positions": "embeddings.position_embeddings",
    "embeddings/norm": "embeddings.LayerNorm",
}
_SEGMENTS = {"embeddings/segments": "embeddings.token_type_embeddings"}
_BERT_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_length": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "layer_norm_epsilon": "layer_norm_eps",
    "initializer_stddev": "initializer_range",
}
_BERT_SUPPORTED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}

TABLES: Mapping[Variant, Table] = {
    "bert": Table(
        classes="Bert",
        modules={
            **_EMBEDDINGS,
            **_SEGMENTS,
            **_LAYERS,
            "pooler": "pooler.dense",
            "classifier": "classifier",
        },
        prefix="bert.",
        head=("classifier",),
        fields=_BERT_FIELDS,
        head_dropout="classifier_dropout",
        supported={"model_type": "bert", **_BERT_SUPPORTED},
    ),
    "roberta": Table(
        classes="Roberta",
        modules={
            **_EMBEDDINGS,
            **_SEGMENTS,
            **_LAYERS,
            "pooler": "classifier.dense",
            "classifier": "classifier.out_proj",
        },
        prefix="roberta.",
        head=("pooler", "classifier"),
        fields=_BERT_FIELDS,
        head_dropout="classifier_dropout",
        supported={"model_type": "roberta", **_BERT_SUPPORTED, "pad_token_id": 1},
    ),
    "distilbert": Table(
        classes="DistilBert",
        modules={
            **_EMBEDDINGS,
            "layer_{i}/query": "transformer.layer.{i}.attention.q_lin",
            "layer_{i}/key": "transformer.layer.{i}.attention.k_lin",
            "layer_{i}/value": "transformer.layer.{i}.attention.v_lin",
            "layer_{i}/attention_out": "transformer.layer.{i}.attention.out_lin",
            "layer_{i}/attention_norm": "transformer.layer.{i}.sa_layer_norm",
            "layer_{i}/mlp_in": "transformer.layer.{i}.ffn.lin1",
            "layer_{i}/mlp_out": "transformer.layer.{i}.ffn.lin2",
            "layer_{i}/mlp_norm": "transformer.layer.{i}.output_layer_norm",
            "pooler": "pre_classifier",
            "classifier": "classifier",
        },
        prefix="distilbert.",
        head=("pooler", "classifier"),
        fields={
            "vocab_size": "vocab_size",
            "num_layers": "n_layers",
            "width": "dim",
            "num_heads": "n_heads",
            "mlp_width": "hidden_dim",
            "max_length": "max_position_embeddings",
            "dropout": "dropout",
            "attention_dropout": "attention_dropout",
            "initializer_stddev": "initializer_range",
        },
        head_dropout="seq_classif_dropout",
        supported={
            "model_type": "distilbert",
            "activation": "gelu",
            "sinusoidal_pos_embds": False,
        },
    ),
}
