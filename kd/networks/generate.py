"""`python -m kd generate MODEL --prompt TEXT`: what a language model writes."""

import argparse
import pathlib
from typing import Any

from kd import options
from kd.errors import UserError

_ROWS = 16
"""Prompts that are continued at once."""


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    how = _how(given)
    prompts = [*given.prompt, *_lines(given.file)]
    if not prompts:
        raise UserError("no prompt; give --prompt TEXT, or --file FILE, one a line")
    if given.num_tokens < 1:
        raise UserError(f"--num-tokens must be at least 1, got {given.num_tokens}")
    options.start()
    texts = write(
        given.model, prompts, how=how, num_tokens=given.num_tokens, seed=given.seed
    )
    for i, text in enumerate(texts):
        print("\n" * (i > 0) + text, flush=True)
    return 0


def write(
    place: str,
    prompts: list[str],
    *,
    how: dict[str, Any],
    num_tokens: int,
    seed: int,
):
    """What a network writes, one by one: prompts and what follows, or answers to them.

    An encoder-decoder answers; any other network goes on.

    Args:
        place: of the network, with its tokenizer: a directory, a run, a GGUF file, or
            a name on the hub.
        prompts: texts to continue, or to answer.
        how: settings by name; of `kd.models.beams.Beams` if there is a `num_beams`, of
            `kd.models.generate.Sample` if there is another, or none to take the
            likeliest tokens.
        num_tokens: the most that are written for each.
        seed: of what is drawn; a prompt's text depends on it and on its place among
            the prompts.

    Raises:
        UserError: there is no such network or tokenizer, or these do not belong
            together, or the prompt is too long.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from kd.data import byte_bpe, unigram
    from kd.models import saved, special_tokens
    from kd.models.beams import Beams
    from kd.models.generate import Greedy, Sample, generate
    from kd.networks import place as places

    try:
        kind = Beams if "num_beams" in how else Sample if how else Greedy
        chosen = kind(**how)
        found = places.model_place(places.place(place))
    except ValueError as error:
        raise UserError(str(error)) from error
    network: Any = saved.read_config(found).network
    if type(network) not in saved.LANGUAGE_MODELS:
        kind = type(network).__name__
        raise UserError(f"{place} is a {kind}, which writes no text")
    answers = type(network) in saved.ENCODER_DECODERS
    kind = unigram if unigram.is_in(found) else byte_bpe
    tokenizer = kind.load(found)
    special = special_tokens.read_special_tokens(found)
    num_ids = byte_bpe.num_ids(tokenizer)
    size = getattr(network, "vocab_size", 0)
    if num_ids > size:
        raise UserError(
            f"{place}: its tokenizer has {num_ids:,} tokens, the network embeddings "
            f"for {size:,}"
        )
    model = network.build(num_ids)
    template = jax.eval_shape(model.init, jax.random.key(0), {})
    params, _, _ = saved.load(found, network, template)
    encoded = [_ids(tokenizer, prompt, special, answers=answers) for prompt in prompts]
    width = max(map(len, encoded))
    root = jax.random.key(seed)
    for first in range(0, len(prompts), _ROWS):
        rows = encoded[first : first + _ROWS]
        tokens = np.zeros((len(rows), width), np.int32)
        mask = np.zeros((len(rows), width), bool)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            root, jnp.arange(first, first + len(rows))
        )
        written = generate(
            model,
            params,
            {"tokens": jnp.asarray(tokens), "token_mask": jnp.asarray(mask)},
            keys,
            chosen,
            num_tokens=num_tokens,
            end=special.end,
        )
        for row, ids in enumerate(rows):
            new = np.asarray(written.tokens[row])[np.asarray(written.token_mask[row])]
            shown = new.tolist() if answers else [*ids, *new.tolist()]
            yield tokenizer.decode(shown, skip_special_tokens=True)


def _ids(tokenizer: Any, prompt: str, special: Any, *, answers: bool) -> list[int]:
    ids = tokenizer.encode(prompt).ids
    if not ids and answers:
        raise UserError("the prompt is empty, and there is nothing to answer")
    # The network goes on after a token, and an end stands before the next text.
    starts = [i for i in (special.begin, *special.end) if i is not None]
    if not ids and not starts:
        raise UserError("the prompt is empty, and no token is known to begin a text")
    return ids or starts[:1]


def _lines(path: pathlib.Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return text.splitlines()


def _how(given: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "top_k", "top_p", "num_beams", "length_penalty")
    how = {k: getattr(given, k) for k in names if getattr(given, k) is not None}
    if "num_beams" in how and how.keys() - {"num_beams", "length_penalty"}:
        raise UserError(
            "--beams draws nothing; drop --temperature, --top-k and --top-p"
        )
    if "num_beams" not in how and "length_penalty" in how:
        raise UserError("--length-penalty is for --beams, which are not asked for")
    return how


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd generate",
        description=(
            "Writes on after prompts, or answers them if it is an encoder-decoder; by "
            "default the likeliest tokens."
        ),
    )
    parser.add_argument(
        "model", help="a run, a directory, a GGUF file, or a name on the hub"
    )
    parser.add_argument(
        "--prompt", action="append", default=[], help="to go on after; any number"
    )
    parser.add_argument("--file", type=pathlib.Path, help="of prompts, one a line")
    parser.add_argument(
        "--num-tokens", type=int, default=64, help="written at most (default 64)"
    )
    parser.add_argument("--temperature", type=float, help="draw, at this temperature")
    parser.add_argument("--top-k", type=int, help="draw among so many tokens")
    parser.add_argument(
        "--top-p", type=float, help="draw among the likeliest of this probability"
    )
    parser.add_argument(
        "--beams", type=int, dest="num_beams", help="search with so many"
    )
    parser.add_argument(
        "--length-penalty", type=float,
        help="of beams: larger for longer texts (default 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser
