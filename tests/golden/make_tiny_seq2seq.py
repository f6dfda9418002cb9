"""Makes the reference for kd/models: tiny random T5 and BART by transformers and torch.

    pip install torch==2.13.0 transformers==5.24.0 safetensors numpy
    PYTHONPATH=tests python tests/golden/make_tiny_seq2seq.py

writes tests/golden/tiny_NAME for each: the checkpoint (config.json, model.safetensors)
and expected.npz with inputs, outputs and gradients in float64, and what it writes from
the sources, greedily and by beams. All weights are random, biases and norms too, and
large enough that attention is far from uniform. Padding is on the right, since
transformers' BART counts it.
"""

import copy
from pathlib import Path

import numpy as np
import torch
import transformers
from golden.make_tiny_decoders import END, NUM_TOKENS, WAYS, in_float64

DIRECTORY = Path(__file__).parent
T5_SIZES = {
    "vocab_size": 24,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 14,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6,
    "decoder_start_token_id": 0,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
CONFIGS = {
    "t5": transformers.T5Config(**T5_SIZES, num_decoder_layers=2),
    "t5_v1_1": transformers.T5Config(
        **T5_SIZES,
        num_decoder_layers=1,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    "bart": transformers.BartConfig(
        vocab_size=24,
        d_model=12,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=14,
        decoder_ffn_dim=14,
        max_position_embeddings=32,
        scale_embedding=True,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=3,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    ),
}
SEEDS = {"t5": 56, "t5_v1_1": 10, "bart": 0}
STDDEVS = {
    "t5": (0.8, 0.8, 0.25),
    "t5_v1_1": (0.4, 0.4, 0.25),
    "bart": (0.8, 0.4, 0.25),
}
"""Of matrices, embeddings and vectors. These and the seeds give lively texts."""


def model(name: str) -> torch.nn.Module:
    """A network with random weights that are float32 numbers."""
    torch.manual_seed(SEEDS[name])
    made = transformers.AutoModelForSeq2SeqLM.from_config(
        CONFIGS[name], attn_implementation="eager", dtype=torch.float32
    ).eval()
    if name == "t5_v1_1":
        # This version of transformers ties what it makes, not what it loads.
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            kind = 2 if parameter.ndim == 1 else int("shared" in key)
            parameter.normal_(centre, STDDEVS[name][kind])
        if name == "bart":
            made.final_logits_bias.normal_(0, 0.3)
    return made


def inputs() -> dict[str, torch.Tensor]:
    """Sources of 9, 6 and 1 tokens, and targets of 4, 7 and 1."""
    torch.manual_seed(1)

    def texts(width: int, lengths: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        return torch.where(mask, torch.randint(4, 24, mask.shape), 0), mask

    tokens, token_mask = texts(9, (9, 6, 1))
    target_tokens, target_mask = texts(7, (4, 7, 1))
    return {
        "tokens": tokens,
        "token_mask": token_mask,
        "target_tokens": target_tokens,
        "target_mask": target_mask,
    }


def expected(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Outputs, a loss of the targets and its gradient, all in float64."""
    batch = inputs()
    tokens, mask = batch["target_tokens"], batch["target_mask"]
    with in_float64():
        exact = copy.deepcopy(network).double()
        start = exact.config.decoder_start_token_id
        outputs = exact(
            input_ids=batch["tokens"],
            attention_mask=batch["token_mask"].long(),
            decoder_input_ids=torch.nn.functional.pad(
                tokens[:, :-1], (1, 0), value=start
            ),
            output_hidden_states=True,
            output_attentions=True,
        )
        log_probs = outputs.logits.log_softmax(-1)
        of_target = log_probs.gather(-1, tokens[..., None])[..., 0]
        loss = -(of_target * mask).sum() / mask.sum()
        loss.backward()
    arrays = {
        **{k: x.int() if x.dtype == torch.int64 else x for k, x in batch.items()},
        "logits": outputs.logits,
        "loss": loss,
        "hidden": torch.stack(outputs.decoder_hidden_states),
        "attention": torch.stack(outputs.decoder_attentions),
        "source_hidden": torch.stack(outputs.encoder_hidden_states),
        "source_attention": torch.stack(outputs.encoder_attentions),
        "cross_attention": torch.stack(outputs.cross_attentions),
    }
    for key, parameter in exact.named_parameters():
        arrays[f"gradient/{key}"] = parameter.grad
    return arrays


def written(network: torch.nn.Module, way: str) -> torch.Tensor:
    """Tokens from each source, [3, 8], 0 after an end."""
    batch = inputs()
    found = network.generate(
        input_ids=batch["tokens"],
        attention_mask=batch["token_mask"].long(),
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        eos_token_id=list(END),
        pad_token_id=0,
        **WAYS[way],
    )[:, 1:]
    # Whatever transformers fills up with.
    ends = torch.isin(found, torch.tensor(END)).int()
    found = torch.where(ends.cumsum(1) - ends > 0, 0, found)
    return torch.nn.functional.pad(found, (0, NUM_TOKENS - found.shape[1])).int()


def main() -> None:
    for name in CONFIGS:
        network = model(name)
        directory = DIRECTORY / f"tiny_{name}"
        network.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        arrays = expected(network)
        arrays |= {f"written/{way}": written(network, way) for way in WAYS}
        np.savez_compressed(
            directory / "expected.npz",
            **{k: v.detach().numpy() for k, v in arrays.items()},
        )


if __name__ == "__main__":
    main()
