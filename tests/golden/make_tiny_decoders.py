"""Makes the reference for kd/models: tiny random decoders by transformers and torch.

    pip install torch==2.13.0 transformers==5.24.0 safetensors numpy
    python tests/golden/make_tiny_decoders.py

writes tests/golden/tiny_NAME for each: the checkpoint (config.json, model.safetensors)
and expected.npz with inputs, outputs and gradients in float64, and
what it writes after the texts, greedily and by beams. All weights are random,
biases and norms too, and large enough that attention is far from uniform. The first
text is padded on the left, the second on the right.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers

DIRECTORY = Path(__file__).parent
SIZES = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.0}
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "mistral": transformers.MistralConfig(
        **SIZES, head_dim=6, sliding_window=3, tie_word_embeddings=True
    ),
    "qwen2": transformers.Qwen2Config(
        **SIZES, rope_parameters=LINEAR, tie_word_embeddings=True
    ),
    "gpt2": transformers.GPT2Config(
        vocab_size=24,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_inner=20,
        n_positions=32,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
    ),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=6),
}


SEEDS = {"gpt2": 35}
"""Where another one gives duller texts."""


def model(config: transformers.PretrainedConfig) -> torch.nn.Module:
    """A network with random weights that are float32 numbers."""
    torch.manual_seed(SEEDS.get(config.model_type, 0))
    made = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            centre = 1.0 if "norm" in name or ".ln_" in name else 0.0
            parameter.normal_(centre, 0.25 if parameter.ndim == 1 else 0.4)
    return made


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Within, what transformers computes in float32 on purpose is float64, too."""
    kept = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = kept


def inputs() -> dict[str, torch.Tensor]:
    """Texts of 9, 6 and 1 tokens, with padding left, right and right."""
    torch.manual_seed(1)
    place = torch.arange(9)
    token_mask = torch.stack([place >= 0, place < 6, place < 1])
    token_mask[0] = place >= 2
    tokens = torch.where(token_mask, torch.randint(1, 24, (3, 9)), 0)
    return {"tokens": tokens, "token_mask": token_mask}


def expected(
    config: transformers.PretrainedConfig, network: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """Outputs, a loss of the next tokens and its gradient, all in float64."""
    batch = inputs()
    tokens, mask = batch["tokens"], batch["token_mask"]
    with in_float64():
        exact = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", dtype=torch.float64
        ).eval()
        exact.load_state_dict(network.state_dict())
        outputs = exact(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            output_hidden_states=True,
            output_attentions=True,
        )
        log_probs = outputs.logits[:, :-1].log_softmax(-1)
        of_next = log_probs.gather(-1, tokens[:, 1:, None])[..., 0]
        predicted = mask[:, :-1] & mask[:, 1:]
        loss = -(of_next * predicted).sum() / predicted.sum()
        loss.backward()
    arrays = {
        **batch,
        "logits": outputs.logits,
        "loss": loss,
        "hidden": torch.stack(outputs.hidden_states),
        "attention": torch.stack(outputs.attentions),
    }
    arrays["tokens"] = tokens.int()
    for name, parameter in exact.named_parameters():
        arrays[f"gradient/{name}"] = parameter.grad
    return arrays


WAYS = {
    "greedy": {"num_beams": 1},
    "beams_3_penalty_0": {"num_beams": 3, "length_penalty": 0.0},
    "beams_3_penalty_1": {"num_beams": 3, "length_penalty": 1.0},
    "beams_4_penalty_2": {"num_beams": 4, "length_penalty": 2.0},
}
END = (3, 11)
NUM_TOKENS = 8


def written(network: torch.nn.Module, way: str) -> torch.Tensor:
    """Tokens after each text, [3, 8], 0 after an end."""
    batch = inputs()
    # transformers asks for padding on the left.
    order = batch["token_mask"].int().argsort(dim=1, stable=True)
    tokens, mask = (x.gather(1, order) for x in batch.values())
    found = network.generate(
        input_ids=tokens,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=NUM_TOKENS,
        eos_token_id=list(END),
        pad_token_id=0,
        **WAYS[way],
    )[:, tokens.shape[1] :]
    # Whatever transformers fills up with.
    ends = torch.isin(found, torch.tensor(END)).int()
    found = torch.where(ends.cumsum(1) - ends > 0, 0, found)
    return torch.nn.functional.pad(found, (0, NUM_TOKENS - found.shape[1])).int()


def main() -> None:
    for name, config in CONFIGS.items():
        network = model(config)
        directory = DIRECTORY / f"tiny_{name}"
        network.save_pretrained(directory)
        (directory / "generation_config.json").unlink(missing_ok=True)
        arrays = expected(config, network)
        arrays |= {f"written/{way}": written(network, way) for way in WAYS}
        np.savez_compressed(
            directory / "expected.npz",
            **{k: v.detach().numpy() for k, v in arrays.items()},
        )


if __name__ == "__main__":
    main()
