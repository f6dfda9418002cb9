"""From an experiment to its results: data, teacher, student, evaluation, report."""

import dataclasses
import datetime
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers

from kd import config, environment, run_directory, teacher
from kd.data import sources, text
from kd.data.pipeline import TrainingBatches, collate, plan_in_order
from kd.data.sources import Corpus
from kd.data.text import Encoded
from kd.evaluate.predict import predictor
from kd.evaluate.scores import scores
from kd.evaluate import fidelity
from kd.experiment import Experiment
from kd.models import hub
from kd.models.bert import Bert
from kd.procedures.offline import offline
from kd.report.page import write_page
from kd.evaluate.transport_plan import transport_plan
from kd.teacher import LoadedTeacher
from kd.train import metrics_log
from kd.train.checkpoint import Checkpoints
from kd.train.loop import Pace, train
from kd.train.mesh import data_mesh, replicate
from kd.train.metrics_log import MetricsLog

Say = Callable[[str], Any]


class Prepared(NamedTuple):
    """The data as a network takes them."""

    corpus: Corpus
    tokenizer: tokenizers.Tokenizer
    train: Encoded
    dev: Encoded


def prepare(
    experiment: Experiment, corpus: Corpus, model_directory: pathlib.Path
) -> Prepared:
    """Tokenizes a corpus; the tokenizer of a run begun before is used again."""
    if (model_directory / "tokenizer.json").exists():
        tokenizer = text.load(model_directory, lowercase=experiment.tokenizer.lowercase)
    else:
        tokenizer = experiment.tokenizer.build(corpus.train)
        model_directory.mkdir(parents=True, exist_ok=True)
        text.save(tokenizer, model_directory)
    longest = experiment.widths[-1]
    return Prepared(
        corpus,
        tokenizer,
        text.encode(tokenizer, corpus.train, max_length=longest),
        text.encode(tokenizer, corpus.dev, max_length=longest),
    )


def run(
    experiment: Experiment,
    *,
    name: str,
    scale: str,
    runs: pathlib.Path,
    say: Say,
) -> dict[str, Any]:
    """Runs an experiment to its end, or goes on with a run begun before.

    Args:
        experiment: what to run.
        name: of the experiment, for the run's folder `runs/name/seed`.
        scale: for the record.
        runs: where all runs lie; trained teachers go to `runs/teachers`.
        say: shows a line to the person who waits.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: bad input, a folder of another run, a loss that is not finite.
        kd.train.loop.Interrupted: a signal asked to stop.
    """
    corpus = sources.load(experiment.data)
    if corpus.notice:
        say(corpus.notice)
    say(f"data: {corpus.origin}")
    directory = runs / name / str(experiment.seed)
    return _run_in(directory, experiment, corpus, name, scale, runs, say)


def _run_in(
    directory: pathlib.Path,
    experiment: Experiment,
    corpus: Corpus,
    name: str,
    scale: str,
    runs: pathlib.Path,
    say: Say,
    *,
    wait: bool = False,
) -> dict[str, Any]:
    description = _describe(experiment, corpus, name, scale)
    with run_directory.claim(directory, description, wait=wait):
        if (directory / "summary.json").exists():
            say(f"{directory} holds this run, finished")
            return run_directory.read_json(directory / "summary.json")
        started = time.perf_counter()
        if experiment.teacher is not None and experiment.teacher.directory:
            _adopt_tokenizer(experiment.teacher.directory, directory / "model")
        data = prepare(experiment, corpus, directory / "model")
        taught_by, teacher_source = None, "none"
        if experiment.teacher is not None:
            taught_by, teacher_source = _obtain_teacher(
                experiment, data, scale, runs, say
            )
        seconds_teacher = time.perf_counter() - started
        summary = _distil(directory, experiment, data, taught_by, runs, say)
        summary = (
            {"name": name, "seed": experiment.seed, "scale": scale}
            | summary
            | {"data": _data_facts(corpus), "versions": environment.versions()}
            | {"device": environment.device()}
        )
        if summary["teacher"] is not None:
            summary["teacher"]["source"] = teacher_source
        summary["speed"] |= {
            "seconds_teacher": round(seconds_teacher, 1),
            "seconds_total": round(time.perf_counter() - started, 1),
        }
        summary["finished"] = datetime.datetime.now(datetime.UTC).isoformat(
            timespec="seconds"
        )
        # The summary marks the run as finished, so the page is written before it
        # under the same name that it will have.
        run_directory.write_json(directory / "summary.json", summary)
        write_page(directory)
        return summary


def _obtain_teacher(
    experiment: Experiment, data: Prepared, scale: str, runs: pathlib.Path, say: Say
) -> tuple[LoadedTeacher, str]:
    chosen = experiment.teacher
    assert chosen is not None
    if chosen.directory:
        where, source = teacher.model_directory(chosen.directory), chosen.directory
        say(f"teacher: {where}")
    else:
        name = teacher.key(chosen.recipe, data.corpus.fingerprint)
        where = runs / "teachers" / name
        source = f"trained by its recipe, key {name}"
        if (where / "summary.json").exists():
            say(f"teacher: {where}, trained before")
        else:
            say(f"teacher: training it in {where}")
            _run_in(
                where, chosen.recipe, data.corpus, "teacher", scale, runs, say, wait=True
            )
        where = where / "model"
    loaded = teacher.load(
        where,
        tokenizer=data.tokenizer,
        num_classes=experiment.data.num_classes,
        compute_dtype=experiment.compute_dtype,
    )
    return loaded, source


def _adopt_tokenizer(teacher_directory: str, model_directory: pathlib.Path) -> None:
    source = teacher.model_directory(teacher_directory)
    if hub.find_file(source, "tokenizer.json") or hub.find_file(source, "vocab.txt"):
        model_directory.mkdir(parents=True, exist_ok=True)
        text.save(text.load(source, lowercase=True), model_directory)


def _initial_student(experiment: Experiment, data: Prepared, batch: Any, say: Say):
    num_classes = experiment.data.num_classes
    bert = experiment.student
    if not bert.pretrained:
        bert = dataclasses.replace(bert, vocab_size=data.tokenizer.get_vocab_size())
    model = bert.build(num_classes, compute_dtype=experiment.compute_dtype)
    params = jax.jit(model.init)(jax.random.key(experiment.seed), batch)
    if bert.pretrained:
        params, fresh, _ = hub.load_pretrained(bert.pretrained, params)
        new = f"; new: {', '.join(fresh)}" if fresh else ""
        say(f"student starts from {bert.pretrained}{new}")
    return bert, model, params


def _distil(
    directory: pathlib.Path,
    experiment: Experiment,
    data: Prepared,
    taught_by: LoadedTeacher | None,
    runs: pathlib.Path,
    say: Say,
) -> dict[str, Any]:
    mesh = data_mesh()
    unit = mesh.size * experiment.num_microbatches
    rows = -(-experiment.batch_size // unit) * unit
    example_batch = collate(
        data.train,
        plan_in_order(
            data.train.lengths, widths=experiment.widths, batch_size=1
        )[0],
        rows,
    )
    bert, model, student_params = _initial_student(
        experiment, data, example_batch, say
    )

    teacher_params = teacher_logits = dev_teacher = None
    if taught_by is not None:
        teacher_params = replicate(taught_by.params, mesh)
        ask = predictor(taught_by.model, widths=experiment.widths, batch_size=256,
                        mesh=mesh)  # fmt: skip
        dev_teacher = ask(teacher_params, data.dev)
        if experiment.objective.needs_teacher and experiment.teacher.logits == "cached":
            teacher_logits = teacher.cached_logits(
                taught_by,
                data.train,
                lambda: ask(teacher_params, data.train),
                runs / "teachers" / "logits",
                say,
            )
            example_batch = example_batch | {"teacher_logits": teacher_logits[:1].repeat(rows, 0)}

    batches = TrainingBatches(
        data.train,
        widths=experiment.widths,
        batch_size=experiment.batch_size,
        rows=rows,
        seed=experiment.seed,
        teacher_logits=teacher_logits,
    )
    num_steps = experiment.num_steps or experiment.num_epochs * batches.per_epoch
    procedure = offline(
        model,
        taught_by.model if taught_by else None,
        experiment.objective,
        experiment.optimizer.build(num_steps),
        num_microbatches=experiment.num_microbatches,
    )
    predict = predictor(model, widths=experiment.widths, batch_size=256, mesh=mesh)

    def evaluate(params):
        found = scores(predict(params, data.dev), data.dev.labels)
        row = {"accuracy": found["accuracy"], "loss": found["nll"]}
        if dev_teacher is not None:
            logits = predict(params, data.dev)
            row["agreement"] = fidelity.agreement(logits, dev_teacher)
            row["kl"] = fidelity.kl(logits, dev_teacher)
        return row

    key = jax.random.fold_in(jax.random.key(experiment.seed), 1)
    state = procedure.init(key, student_params, teacher_params, example_batch)
    checkpoints = Checkpoints(directory / "checkpoints")
    log = MetricsLog(directory / "metrics.jsonl")
    started = time.perf_counter()
    try:
        state, examples_per_second = train(
            procedure,
            replicate(state, mesh),
            teacher_params,
            batches,
            pace=Pace(
                num_steps=num_steps,
                steps_per_epoch=batches.per_epoch,
                evaluate_every=experiment.evaluate_every or batches.per_epoch,
                save_every=experiment.save_every,
                log_every=experiment.log_every,
            ),
            mesh=mesh,
            learning_rate=experiment.optimizer.schedule(num_steps),
            evaluate=evaluate,
            checkpoints=checkpoints,
            log=log,
            say=say,
        )
    finally:
        log.close()
        checkpoints.close()
    seconds_train = time.perf_counter() - started

    params = state.params["student"]
    hub.save_pretrained(
        directory / "model",
        bert,
        jax.device_get(params),
        labels=experiment.data.labels,
    )
    logits = predict(params, data.dev)
    best = max(
        (row for row in metrics_log.read(log.path) if row["split"] == "dev"),
        key=lambda row: row["accuracy"],
    )
    results = {
        "teacher": None,
        "student": scores(logits, data.dev.labels)
        | {"num_params": _count(params)}
        | {"best_accuracy": best["accuracy"], "best_step": best["step"]},
        "fidelity": None,
        "speed": {
            "examples_per_second": round(examples_per_second, 1),
            "steps": num_steps,
            "seconds_train": round(seconds_train, 1),
        },
    }
    predictions = {"labels": data.dev.labels, "student_logits": logits}
    if dev_teacher is not None:
        predictions["teacher_logits"] = dev_teacher
        results["teacher"] = scores(dev_teacher, data.dev.labels) | {
            "num_params": _count(taught_by.params)
        }
        results["fidelity"] = {
            "agreement": fidelity.agreement(logits, dev_teacher),
            "kl": fidelity.kl(logits, dev_teacher),
            "total_variation": fidelity.total_variation(logits, dev_teacher),
        }
        np.savez(
            directory / "plan.npz", **transport_plan(experiment.objective, **predictions)
        )
    np.savez(directory / "predictions.npz", **predictions)
    shutil.rmtree(directory / "checkpoints")
    return results


def _describe(
    experiment: Experiment, corpus: Corpus, name: str, scale: str
) -> dict[str, Any]:
    """What `config.json` says: the experiment and the content of its data.

    Not where the data lie: a run goes on after they were moved.
    """
    tree = config.to_json(experiment)
    for node in (tree, (tree["teacher"] or {}).get("recipe")):
        if node:
            del node["data"]["directory"], node["data"]["source"]
    return {
        "run": {"name": name, "seed": experiment.seed, "scale": scale},
        "data": {"source": corpus.source, "fingerprint": corpus.fingerprint},
        "experiment": tree,
    }


def _data_facts(corpus: Corpus) -> dict[str, Any]:
    return {
        "source": corpus.source,
        "origin": corpus.origin,
        "fingerprint": corpus.fingerprint,
        "num_train": len(corpus.train.labels),
        "num_dev": len(corpus.dev.labels),
    }


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
