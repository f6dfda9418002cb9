# The project's one interface: `make` prints what it can do.
#
# Everything runs from this folder with the interpreter of .venv, which is made here on
# first use and brought up to date when requirements.lock changes. The project itself is
# not installed into it: `python -m kd` finds kd/ and experiments/ in the working folder,
# so what you edit is what runs.

PYTHON ?= python3
JAX_EXTRA ?= cuda13
ARGS :=
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished
PIP := $(PY) -m pip --disable-pip-version-check -qq

# What is imported is compiled once and kept, also where the environment says otherwise, as
# many container images do: compiling JAX anew takes 4 seconds at every start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
# The folders docs and notebooks exist.
.PHONY: help install install-gpu exp hosts table sweep memory profile cache experiments bench docs notebooks test test-slow test-compiled fuzz drill lint fmt types check lock clean

help:  ## print this list
	@echo 'usage: make TARGET [NAME=value ...]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'for example: make exp NAME=sst2_sinkd SCALE=mini SEED=1 ARGS="batch_size=64"'

# --- set-up -----------------------------------------------------------------------------

define SUPPORTED
import sys
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
endef
export SUPPORTED

# Makes .venv unless a whole one is there.
define make_venv
	@test ! -e $(UNFINISHED) && $(PY) -m pip --version >/dev/null 2>&1 || { \
		"$(PYTHON)" -c "$$SUPPORTED" 2>/dev/null || { \
			echo "error: '$(PYTHON)' is missing or not Python 3.11 to 3.14; install one of these, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }; \
		"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "error: the venv module of '$(PYTHON)' is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
		"$(PYTHON)" -m venv --clear $(VENV); }
endef

install: $(INSTALLED)  ## set up .venv from requirements.lock; every other target does it too

# The stamp comes last, so an interrupted set-up is begun anew by the next make; two at
# once end with it whichever is first.
# Only `promise` (of TFDS) has no wheels; nothing else may start a compiler.
$(INSTALLED): requirements.lock
	$(make_venv)
	@echo 'Setting up $(VENV): 1.1 GB in about a minute, once.' >&2
	@touch $(UNFINISHED)
	@$(PIP) install --requirement requirements.lock --require-hashes --no-deps --no-compile \
		--use-pep517 --only-binary :all: --no-binary promise || { \
		echo 'error: the set-up stopped for the reason above; run the same command again' >&2; exit 1; }
	@rm -f $(UNFINISHED) && touch $@

install-gpu: install  ## add JAX's accelerator support: JAX_EXTRA=cuda13 (default), cuda12 or tpu
	@$(PIP) install "jax[$(JAX_EXTRA)]==$$(sed -n 's/^jax==\([^ ;]*\).*/\1/p' requirements.lock)"
	@$(PY) -c 'import jax; print("jax", jax.__version__, "sees", jax.devices())'

lock:  ## write requirements.lock anew from setup.cfg; ARGS=--upgrade takes newer versions
	$(make_venv)
	@$(PIP) install uv
	@$(PY) -m uv --quiet pip compile setup.cfg --extra test --universal \
		--python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command 'make lock' \
		--output-file requirements.lock $(ARGS)

# --- experiments ------------------------------------------------------------------------

# --flag="$VARIABLE" if the variable is given on make's command line: a SOURCE or NAME
# that happens to be in the environment says nothing. The shell expands the value, so it
# may hold spaces.
given = $(and $(findstring command line,$(origin $1)),$(value $1),$2"$$$1")

exp: $(INSTALLED)  ## run an experiment: NAME= [SEED= SCALE= SOURCE= DATA_DIR= WEIGHTS= RUNS= DEBUG=1 ARGS="a.b=1"]
	@exec $(PY) -m kd $(call given,SEED,--seed=) $(call given,SCALE,--scale=) \
		$(call given,SOURCE,--source=) $(call given,DATA_DIR,--data-dir=) \
		$(call given,RUNS,--runs=) $(call given,WEIGHTS,--weights=) $(and $(call given,DEBUG),--debug) \
		$(call given,COORDINATOR,--coordinator=) $(call given,PROCESSES,--processes=) \
		$(call given,PROCESS,--process=) $(call given,PATIENCE,--patience=) \
		$(call given,NAME) $(ARGS)

hosts: $(INSTALLED)  ## run an experiment in several processes here, see docs/hosts.md: N=2 NAME= [as exp]
	@exec $(PY) -m kd hosts $(if $(call given,N),$(N),2) $(call given,SEED,--seed=) \
		$(call given,SCALE,--scale=) $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(call given,RUNS,--runs=) \
		$(call given,WEIGHTS,--weights=) $(and $(call given,DEBUG),--debug) \
		$(call given,NAME) $(ARGS)

table: $(INSTALLED)  ## make a table of many runs: NAME= [ROW= SEEDS=0,1 JOBS=2 TOGETHER=1 CHECK=3 RESULTS= TUNED=no ...]
	@exec $(PY) -m kd table $(call given,SCALE,--scale=) $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(call given,RUNS,--runs=) \
		$(call given,WEIGHTS,--weights=) $(call given,ROW,--row=) $(call given,SEEDS,--seeds=) \
		$(call given,JOBS,--jobs=) $(call given,CHECK,--check=) \
		$(and $(call given,TOGETHER),$(if $(filter 0,$(TOGETHER)),--no-together,--together)) \
		$(call given,RESULTS,--results=) $(call given,TUNED,--tuned=) \
		$(and $(call given,DEBUG),--debug --verbose) $(call given,NAME) $(ARGS)

sweep: $(INSTALLED)  ## tune a table's rows alike: NAME= GRID="a.b=[1,2]" [TRIALS=8 SEEDS=100,101 ...]
	@exec $(PY) -m kd sweep $(call given,SCALE,--scale=) $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(call given,RUNS,--runs=) \
		$(call given,WEIGHTS,--weights=) $(call given,ROW,--row=) $(call given,SEEDS,--seeds=) \
		$(call given,JOBS,--jobs=) $(call given,GRID,--grid=) $(call given,TRIALS,--trials=) \
		$(and $(call given,TOGETHER),$(if $(filter 0,$(TOGETHER)),--no-together,--together)) \
		$(call given,RESULTS,--results=) $(and $(call given,DEBUG),--debug --verbose) \
		$(call given,NAME) $(ARGS)

memory: $(INSTALLED)  ## say what a run takes in memory, before anything is trained: NAME= [as exp]
	@exec $(PY) -m kd memory $(call given,SCALE,--scale=) $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(call given,RUNS,--runs=) \
		$(call given,WEIGHTS,--weights=) $(and $(call given,DEBUG),--debug) \
		$(call given,NAME) $(ARGS)

profile: $(INSTALLED)  ## compare training with dev in the layers of a run: RUN= [SOURCE= DATA_DIR= ARGS="--examples=512"]
	@exec $(PY) -m kd profile $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(and $(call given,DEBUG),--debug) \
		$(call given,RUN) $(ARGS)

cache: $(INSTALLED)  ## ask an experiment's teachers beforehand, once: NAME= [as exp, ARGS="answers=cached keep=64"]
	@exec $(PY) -m kd cache $(call given,SCALE,--scale=) $(call given,SOURCE,--source=) \
		$(call given,DATA_DIR,--data-dir=) $(call given,RUNS,--runs=) \
		$(call given,WEIGHTS,--weights=) $(and $(call given,DEBUG),--debug) \
		$(call given,NAME) $(ARGS)

experiments: $(INSTALLED)  ## list the experiments with a line each
	@$(PY) -c 'from kd import catalog; print(catalog.listing())'

bench: $(INSTALLED)  ## run the benchmarks, an hour on two cores: DATA_DIR= (PyTorch is installed first)
	@$(PIP) install torch==2.13.0 'transformers>=5.23' POT geomloss  # setup.cfg, extra bench
	@for name in step_vs_pytorch models procedures padding loss_overhead cached_teacher \
		many_seeds transport transport_accuracy large_vocabulary memory communication; do \
		$(PY) -m benchmarks.$$name $(call given,DATA_DIR,--data-dir=) || exit; done
	@$(PY) -m benchmarks.tables

# --- pages ------------------------------------------------------------------------------

docs: $(INSTALLED)  ## write docs/conventions.md and docs/methods.md anew from the code
	@$(PY) -m docs.conventions_page.page docs/conventions.md
	@$(PY) -m docs.methods_page.page docs/methods.md

notebooks: $(INSTALLED)  ## write the notebooks from their sources, run them: build/notebooks
	@$(PIP) install nbclient ipykernel  # setup.cfg, extra notebooks
	@$(PY) notebooks/build.py --execute

# --- checks -----------------------------------------------------------------------------

test: $(INSTALLED)  ## run the tests, in five minutes on two cores; ARGS="-k sinkd" chooses
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile -m 'not slow' $(ARGS)

test-slow: $(INSTALLED)  ## run the rest: whole runs, kills, several processes, notebooks
	@$(PY) -m pytest --numprocesses=2 --dist=loadfile -m slow $(ARGS)

test-compiled: $(INSTALLED)  ## run the tests of numerics as users compile
	@KD_TEST_COMPILED=1 $(PY) -m pytest --numprocesses=2 --dist=loadfile -m 'not slow' \
		tests/transport tests/divergences tests/objective tests/features \
		tests/procedures $(ARGS)

fuzz: $(INSTALLED)  ## feed random settings and files to it: RUNS=10000 of each kind
	@FUZZ_RUNS=$(if $(call given,RUNS),$(RUNS),1000) $(PY) -m pytest -q -n 0 tests/fuzz

drill: $(INSTALLED)  ## kill a run at random moments and compare how it ends: KILLS=100 [PROCESSES=2]
	@$(PY) tests/drill.py --kills=$(if $(call given,KILLS),$(KILLS),100) $(call given,PROCESSES,--processes=)

lint: $(INSTALLED)  ## check style and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

fmt: $(INSTALLED)  ## put style and format right
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: $(INSTALLED)  ## check the types
	@$(PY) -m pyrefly check

check: lint types test  ## lint, types and test

clean:  ## remove caches and build products; never runs/ or .venv
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -path ./$(VENV) -prune -o -path ./runs -prune -o -name __pycache__ -exec rm -rf {} +
