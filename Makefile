# One command on a fresh machine is enough: each target makes .venv and installs what it needs.
# All versions come from CONSTRAINTS; PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
# a process a core, at most four, each with one thread of torch's, and for all tests one more: those
# of engines and servers wait now and then; and all of them read the bytecode that one has written,
# whatever the shell's settings
CORES := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -lt 4 ] && echo $$n || echo 4)
WORKERS ?= $(shell [ $(CORES) -lt 4 ] && echo $$(($(CORES) + 1)) || echo 4)
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist worksteal --durations=40

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick lint notebooks bench bench-gpu clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/demo.stamp  ## answer questions from Python's own documentation
	$(BIN)/m3-retrievers demo

test: $(VENV)/dev.stamp  ## run all tests
	$(TEST) -n $(WORKERS)

test-quick: $(VENV)/dev.stamp  ## run what takes under a minute: no notebooks, training, other processes
	$(TEST) -n $(CORES) -m "not slow"

lint: $(VENV)/dev.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/dev.stamp  ## run the notebooks again and keep what they show
	$(BIN)/python tests/notebooks.py

docs: $(VENV)/dev.stamp  ## the reference, from the docstrings, as a site in build/docs
	$(BIN)/python tests/reference_pages.py build/docs

bench: $(BENCH)/bench.stamp  ## compare with FlagEmbedding and LlamaIndex's M3 index (about an hour)
	PYTHON=$(BENCH)/bin/python benchmarks/run

bench-gpu: $(BENCH)/bench.stamp  ## throughput on a CUDA device, where there is one
	$(BENCH)/bin/python benchmarks/gpu_throughput.py --models .bench-models

clean:  ## remove environments, caches and the demo's index
	rm -rf $(VENV) $(BENCH) .bench-models build .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "m3-retrievers needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# the demo needs less than the tests, and installs in less time
$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml $(CONSTRAINTS)
	@test -f $(VENV)/dev.stamp || echo "Installing into $(VENV); this takes some minutes, once."
	$(INSTALL) -e ".[mini,cli]"
	@touch $@

$(VENV)/dev.stamp: $(VENV)/python.stamp pyproject.toml $(CONSTRAINTS)
	@echo "Installing into $(VENV); this takes some minutes, once."
	$(INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/demo.stamp

# the peers' requirements are theirs, so they get an environment that users never need
$(BENCH)/bench.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e ".[mini,speed,plot]" ir-measures FlagEmbedding==1.4.2 llama-index-indices-managed-bge-m3==0.8.0 \
	  faiss-cpu bm25s
	@touch $@
