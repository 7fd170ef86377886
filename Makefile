# Two commands for a newcomer: `make quickstart` and `make test`. Everything happens in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs/quickstart

.PHONY: help quickstart test test-slow lint format clean

help:  ## lists the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.runtime  ## trains a small model on three dimensions and shows the result (a few minutes)
	$(BIN)/amopo lab world --out=$(RUNS)/world
	$(BIN)/amopo train --config=configs/quickstart_sft.py --workdir=$(RUNS)/sft
	$(BIN)/amopo train --config=configs/quickstart.py --workdir=$(RUNS)/amopo
	for run in sft amopo; do test -f $(RUNS)/$$run.jsonl || $(BIN)/amopo generate --config=configs/quickstart.py \
	  --model=$(RUNS)/$$run --data=$(RUNS)/world/heldout.jsonl --out=$(RUNS)/$$run.jsonl --max_new=48 || exit 1; done
	$(BIN)/amopo lab grade --responses=$(RUNS)/sft.jsonl,$(RUNS)/amopo.jsonl

test: $(VENV)/.dev  ## runs the fast tests (9 to 20 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev  ## runs the others too
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow or not slow'

lint: $(VENV)/.dev  ## ruff and pyright
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

format: $(VENV)/.dev  ## what ruff can mend by itself
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:  ## removes the environment and the quickstart's runs
	rm -rf $(VENV) $(RUNS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "amopo_jax needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@
