"""`python -m kd profile RUN [options]`: what `make profile` calls."""

import pathlib

import numpy as np

from kd import options
from kd.errors import UserError

_MOST = 10_000
"""Training examples that the metrics are computed on; dev sets are about as large."""


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    if given.run is None:
        raise UserError("which run? make profile RUN=runs/NAME/SEED")
    options.start()

    from kd import run_directory
    from kd.analysis.profile import Examples, Sampling, logits_of, profile
    from kd.atomic import atomic_write
    from kd.models.mlp import MLP
    from kd.models.resnet import ResNet
    from kd.profile import page
    from kd.profile.reopen import reopen

    try:
        sampling = Sampling(
            num_examples=given.examples, num_draws=given.draws, seed=given.seed
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    found = reopen(given.run, source=given.source, place=given.data_dir)
    directory, network, params = found.run.directory, found.network, found.params
    if not isinstance(network, MLP | ResNet):
        raise UserError(
            f"{directory}: its network is a {type(network).__name__}; a profile needs "
            "layers of one shape for all examples, as an MLP or a ResNet has them"
        )
    target, sample = found.task.target, found.sample
    train, dev = (
        Examples(split, index, labels, target.points(labels))
        for split, index, labels in (
            (
                found.data.train,
                sample.kept[sample.labelled[sample.kept]],
                sample.labels,
            ),
            (found.data.dev, np.arange(len(found.data.dev)), found.data.dev.labels),
        )
    )
    try:
        layers = profile(network, params, target.num_outputs, train, dev, sampling)
    except ValueError as error:
        raise UserError(f"{directory}: {error}") from error
    logits = logits_of(network, params, target.num_outputs)
    order = np.random.Generator(np.random.Philox(key=[sampling.seed, 2**63 + 1]))
    scores = {
        name: target.scores(logits(part.split, index), part.labels[index])
        for name, part, index in (
            ("train", train, order.permutation(train.index)[:_MOST]),
            ("dev", dev, dev.index),
        )
    }
    record = page.record(
        layers,
        summary=found.run.summary,
        origin=found.data.corpus.origin,
        scores=scores,
    )
    run_directory.write_json(directory / "profile.json", record)
    path = directory / "profile.html"
    with atomic_write(path) as file:
        file.write(page.render(record))
    print(page.lines(record))
    print(f"{'page':<11} {path}")
    return 0


def _parser() -> options.Parser:
    parser = options.Parser(
        prog="python -m kd profile",
        description="Compares training with dev in every layer of a finished run.",
    )
    parser.add_argument("run", nargs="?", type=pathlib.Path, help="runs/NAME/SEED")
    parser.add_argument(
        "--examples", type=int, default=512, help="of each sample (default 512)"
    )
    parser.add_argument(
        "--draws", type=int, default=5, help="of samples, averaged over (default 5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--source", choices=("auto", "local", "tfds", "bundled"),
        help="of the data, where that is no longer the run's",
    )  # fmt: skip
    parser.add_argument("--data-dir", help="folder of data sets, likewise")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser
