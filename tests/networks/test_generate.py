"""The command that shows what a language model writes."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from kd.__main__ import main
from kd.data import byte_bpe, unigram
from kd.models import generate, saved
from kd.networks.generate import write

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = ["ab abc abcd"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny Llama, as if its 24 tokens were letters."""
    directory = tmp_path_factory.mktemp("model")
    shutil.copy(GOLDEN / "tiny_llama" / "model.safetensors", directory)
    config = json.loads((GOLDEN / "tiny_llama" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    tokenizer = byte_bpe.train(TEXTS, size=257)
    description = json.loads(tokenizer.to_str())
    kept = ["<|endoftext|>", *"abcdefghijklmnopqrstuvw"]
    description["model"]["vocab"] = {token: i for i, token in enumerate(kept)}
    description["added_tokens"][0]["id"] = 0
    (directory / "tokenizer.json").write_text(json.dumps(description))
    return str(directory)


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """The tiny T5, as if its 24 tokens were letters and a few others."""
    directory = tmp_path_factory.mktemp("answering")
    for file in ("model.safetensors", "config.json"):
        shutil.copy(GOLDEN / "tiny_t5" / file, directory)
    pieces = ["<pad>", "<unk>", "\u2581", "</s>", *"abcdefghijklmnop"]
    made = tokenizers.Tokenizer(
        models.Unigram([(piece, -1.0) for piece in pieces], unk_id=1)
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(pieces[:2] + pieces[3:4])
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 3)]
    )
    unigram.save(made, directory)
    return str(directory)


def written(capsys, *arguments):
    assert main(["generate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def complaint(capsys, *arguments):
    assert main(["generate", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.slow
def test_prompts_are_gone_on_with(capsys, model, tmp_path):
    out = written(capsys, model, "--prompt", "abc", "--num-tokens", 6)
    text = out.strip()
    assert text.startswith("abc") and 3 < len(text) <= 9
    again = written(capsys, model, "--prompt", "abc", "--num-tokens", 6)
    assert again == out
    file = tmp_path / "prompts.txt"
    file.write_text("abc\nfade\n")
    both = written(
        capsys, model, "--prompt", "w", "--file", file, "--num-tokens", 6
    ).split("\n\n")
    assert [text[:1] for text in both] == ["w", "a", "f"]
    assert both[1] == text


@pytest.mark.slow
def test_an_encoder_decoder_answers(capsys, answering):
    """Letters that there are, and not the prompt; as by hand."""
    prompts = ["abc", "ponm lkj"]
    both = written(
        capsys, answering, "--prompt", prompts[0], "--prompt", prompts[1],
        "--num-tokens", 6,
    ).split("\n\n")  # fmt: skip
    network = saved.read_config(answering).network
    model = network.build(20)
    template = jax.eval_shape(model.init, jax.random.key(0), {})
    params = saved.load(answering, network, template).params
    tokenizer = unigram.load(answering)
    for prompt, text in zip(prompts, both, strict=True):
        ids = jnp.array([tokenizer.encode(prompt).ids])
        assert ids[0, -1] == 3
        source = {"tokens": ids, "token_mask": jnp.ones(ids.shape, bool)}
        found = generate.generate(
            model, params, source, jax.random.key(0), num_tokens=6, end=(3,)
        )
        new = found.tokens[0][found.token_mask[0]].tolist()
        assert text.strip("\n") == tokenizer.decode(new)
    beams = ("--beams", 3, "--length-penalty", 0.0, "--num-tokens", 6)
    assert written(capsys, answering, "--prompt", "abc", *beams)


@pytest.mark.slow
def test_ways_differ(capsys, model):
    ask = (model, "--prompt", "abc", "--num-tokens", 12)
    ways = [
        (),
        ("--temperature", 3.0),
        ("--temperature", 3.0, "--seed", 1),
        ("--beams", 4, "--length-penalty", 0.0),
    ]
    texts = [written(capsys, *ask, *way) for way in ways]
    assert len(set(texts)) == len(ways)
    assert written(capsys, *ask, *ways[1]) == texts[1]
    assert written(capsys, *ask, "--top-k", 1) == texts[0]
    assert written(capsys, *ask, "--top-p", 1e-9) == texts[0]


@pytest.mark.slow
def test_many_prompts_each_have_their_own_draws(model):
    how = {"temperature": 2.0}
    settings = {"how": how, "num_tokens": 8, "seed": 5}
    texts = list(write(model, ["abc"] * 18, **settings))
    assert len(texts) == 18 and len(set(texts)) > 12
    assert list(write(model, ["abc", "abc"], **settings)) == texts[:2]


def test_an_empty_prompt_begins_after_an_end(capsys, model):
    assert written(capsys, model, "--prompt", "", "--num-tokens", 5).strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompt; give --prompt TEXT, or --file FILE"),
        (
            ["--prompt", "a", "--num-tokens", 0],
            "--num-tokens must be at least 1, got 0",
        ),
        (["--prompt", "a", "--num-tokens", 32], "positions for at most 32"),
        (["--prompt", "a", "--temperature", 0], "temperature is 0.0, must be positive"),
        (["--prompt", "a", "--beams", 2, "--top-k", 2], "--beams draws nothing; drop"),
        (["--prompt", "a", "--length-penalty", 2], "--length-penalty is for --beams"),
        (["--file", "none.txt"], "none.txt cannot be read"),
        (["--prompts", "a"], "unrecognized arguments"),
    ],
)
def test_bad_arguments(capsys, model, arguments, message):
    assert message in complaint(capsys, model, *arguments)


def test_models_that_cannot_write(capsys, model, tmp_path):
    ask = ("--prompt", "a")
    line = complaint(capsys, tmp_path / "none", *ask)
    assert "expected a directory or a name on the hub" in line
    assert "has no config.json" in complaint(capsys, tmp_path, *ask)
    shutil.copy(GOLDEN / "tiny_llama" / "config.json", tmp_path)
    assert "expected tokenizer.json" in complaint(capsys, tmp_path, *ask)
    byte_bpe.save(byte_bpe.train(TEXTS, size=260), tmp_path)
    line = complaint(capsys, tmp_path, *ask)
    assert "has 260 tokens, the network embeddings for 24" in line
    shutil.copy(GOLDEN / "tiny_bert" / "config.json", tmp_path)
    assert "is a Bert, which writes no text" in complaint(capsys, tmp_path, *ask)
