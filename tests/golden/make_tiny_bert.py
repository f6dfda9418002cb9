"""Makes the reference for kd/models: a tiny random BERT by transformers and torch.

    pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    python tests/golden/make_tiny_bert.py

writes tests/golden/tiny_bert: the checkpoint (config.json, model.safetensors) and
expected.npz with inputs, outputs and gradients. All weights are random, biases and
layer norms too, and large enough that attention is far from uniform.
"""

from pathlib import Path

import numpy as np
import torch
import transformers

DIRECTORY = Path(__file__).parent / "tiny_bert"


def main() -> None:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=96,
            max_position_embeddings=24,
            id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
            label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.normal_(centre, 0.25)
    model.save_pretrained(DIRECTORY)

    lengths = torch.tensor([11, 7, 1])
    token_mask = torch.arange(11) < lengths[:, None]
    tokens = torch.where(token_mask, torch.randint(1, 64, (3, 11)), 0)
    segments = torch.where(token_mask, torch.randint(0, 2, (3, 11)), 0)
    labels = torch.tensor([2, 0, 1])
    outputs = model(
        input_ids=tokens,
        attention_mask=token_mask.long(),
        token_type_ids=segments,
        labels=labels,
        output_hidden_states=True,
        output_attentions=True,
    )
    outputs.loss.backward()
    without_segments = model(input_ids=tokens, attention_mask=token_mask.long())
    arrays = {
        "tokens": tokens.int(),
        "token_mask": token_mask,
        "segments": segments.int(),
        "labels": labels.int(),
        "logits": outputs.logits,
        "logits_without_segments": without_segments.logits,
        "loss": outputs.loss,
        "hidden": torch.stack(outputs.hidden_states),
        "attention": torch.stack(outputs.attentions),
    }
    for name, parameter in model.named_parameters():
        arrays[f"gradient/{name}"] = parameter.grad
    np.savez_compressed(
        DIRECTORY / "expected.npz",
        **{name: array.detach().numpy() for name, array in arrays.items()},
    )


if __name__ == "__main__":
    main()
