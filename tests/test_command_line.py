"""What a person gets to read: one line, status 2, nothing lost."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from kd import catalog
from kd.__main__ import main

BUNDLED = ["--source", "bundled"]


def complaint(capsys, *arguments):
    """The error line of a command that must fail."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_no_name_lists_the_experiments(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().out
    for name in catalog.names():
        assert f"  {name} " in shown and catalog.headline(name) in shown


def test_unknown_name_lists_the_experiments(capsys):
    assert main(["sst2_sinkdd"]) == 2
    shown = capsys.readouterr().err
    assert "no experiment 'sst2_sinkdd'; did you mean sst2_sinkd?" in shown
    for name in catalog.names():
        assert f"  {name} " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batchsize=3"], "did you mean batch_size?"),
        (["batch_size=0"], "must be at least 1"),
        (["--scale", "huge"], "invalid choice: 'huge'"),
        (["--seed", "one"], "invalid int value: 'one'"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--lr", "1"], "unrecognized arguments"),
        (["batch_size"], "expected field=value"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder is not a folder"),
        (["--source", "local"], "needs DATA_DIR"),
        (
            [*BUNDLED, "start=/no/such/model"],
            "start=/no/such/model: expected a directory or a name on the hub",
        ),
        ([*BUNDLED, "--data-dir", "data"], "DATA_DIR is not read with SOURCE=bundled"),
        ([*BUNDLED, "--runs", "/proc/runs"], "cannot write to /proc/runs"),
        ([*BUNDLED, "--runs", "~no.body/x"], "RUNS=~no.body/x: there is no such home"),
    ],
)
def test_bad_arguments(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    scale = [] if "--scale" in arguments else ["--scale", "mini"]
    assert message in complaint(capsys, "sst2_ce", *scale, "teacher=none", *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.tsv: no examples"),
        ("text\tlabel\nfine\t1\n", "train.tsv:1: the header has the columns"),
        ("sentence\tlabel\nfine\t1\nbad\n", "train.tsv:3: 1 fields between tabs"),
        ("sentence\tlabel\nfine\tyes\n", "train.tsv:2: label 'yes'; expected 0 to 1"),
        ("sentence\tlabel\nfine\t2\n", "train.tsv:2: label '2'; expected 0 to 1"),
    ],
)
def test_malformed_data(capsys, tmp_path, content, message):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2/train.tsv").write_text(content)
    (tmp_path / "SST-2/dev.tsv").write_text("sentence\tlabel\nfine\t1\n")
    line = complaint(
        capsys, "sst2_ce", "--data-dir", tmp_path, "--runs", tmp_path / "r"
    )
    assert message in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fashion_mnist_ce", *BUNDLED],
            "no bundled corpus stands in for fashion-mnist; DATA_DIR=DIR reads"
            " DIR/fashion-mnist/train-images-idx3-ubyte",
        ),
        (["gtzan_kd"], "gtzan-features is not in TFDS; DATA_DIR=DIR reads DIR/gtz"),
        (["fashion_mnist_ce", "data.widths=8"], "no field 'widths' in data"),
        (["fashion_mnist_ce", "student.widths=7"], "width 7 is not divisible by num_g"),
    ],
)
def test_images_and_tables(capsys, tmp_path, arguments, message):
    line = complaint(capsys, *arguments, "--scale", "mini", "--runs", tmp_path / "r")
    assert message in line
    assert not (tmp_path / "r" / arguments[0]).exists()


def test_a_teacher_that_is_not_there(capsys, tmp_path):
    line = complaint(
        capsys, "sst2_kd", "--scale", "mini", *BUNDLED, "--runs", tmp_path / "r",
        f"teacher={tmp_path / 'none'}",
    )  # fmt: skip
    assert f"teachers={tmp_path / 'none'}: expected a directory or a name" in line


def test_folder_without_the_task(capsys, tmp_path):
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA/dev.tsv").write_text("")
    line = complaint(capsys, "sst2_ce", "--data-dir", tmp_path)
    assert "no SST-2 folder" in line and "CoLA" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sst2_cee"], "no experiment 'sst2_cee'; did you mean sst2_ce?"),
        (["sst2_ce", "batch_sise=4"], "batch_sise"),
        (["fashion_mnist_ce", "--data-dir", "nowhere"], "nowhere"),
        (["sst2_ce", "--profile"], "unrecognized arguments: --profile"),
    ],
)
def test_memory_of_what_is_not_there(capsys, tmp_path, arguments, message):
    assert main(["memory", *arguments, "--runs", str(tmp_path / "r")]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and message in first


def test_debug_shows_the_traceback(capsys):
    assert main(["sst2_ce", "batch_size=0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory; a lower batch_size needs less"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GiB\nmore"),
            "out of memory (RESOURCE_EXHAUSTED: 9 GiB); a lower batch_size needs less, "
            "and so does a higher num_microbatches",
        ),
        (RuntimeError("Could not determine home directory."), "give it without ~"),
    ],
)
def test_what_the_machine_lacks(capsys, tmp_path, monkeypatch, error, message):
    def failing(*_):
        raise error

    monkeypatch.setattr("kd.run.run", failing)
    arguments = ("sst2_ce", "--scale", "mini", *BUNDLED, "--runs", tmp_path)
    assert message in complaint(capsys, *arguments)


def test_other_errors_of_running_are_defects(tmp_path, monkeypatch):
    def failing(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr("kd.run.run", failing)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["sst2_ce", "--scale", "mini", *BUNDLED, "--runs", str(tmp_path)])


def test_a_setting_that_jax_does_not_take():
    code = "from kd.__main__ import main; import sys; sys.exit(main(['sst2_ce']))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"JAX_ENABLE_X64": "perhaps"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: JAX does not start: ") and "JAX_ENABLE_X64" in line


@pytest.mark.slow
def test_full_disk(tmp_path):
    """A run whose files may not grow beyond some size stops like one on a full disk."""
    program = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail with an OSError
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from kd.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, "sst2_teacher", *BUNDLED, "--scale", "mini",
         "--runs", str(tmp_path), "num_steps=4", "student.width=64",
         "student.num_heads=1", "student.num_layers=1"],
        capture_output=True, text=True, timeout=300,
        # Python would leave half a file of bytecode, too, and could not start again.
        env=os.environ
        | {"JAX_COMPILATION_CACHE_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    (line,) = [x for x in found.stderr.splitlines() if x.startswith("error: ")]
    assert "File too large" in line or "space" in line
    assert not list(tmp_path.rglob("summary.json"))
