# make demo and make test need nothing but Python 3.11 or newer: each makes .venv on its first call.
#   make demo                      train the default configuration on the bundled digits
#   make test ARGS="-k resume"     pass arguments on to pytest
#   make test PYTHON=python3.12    make .venv with another Python
# VENV and every variable below can also be set in the environment.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev,hub,tensorboard,slurm,sweep
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint format reference clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /  make \1\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11. Use: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## train the default configuration: real digits, ImageNet weights, no network, about a minute and a half
	$(BIN)/finetune $(ARGS)

test: $(STAMP)  ## run the tests, in JOBS processes
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## run the tests that take long, which make test leaves out
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "slow and not gpu and not network" $(ARGS)

lint: $(STAMP)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code in its usual form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(STAMP)  ## generate docs/reference/configuration.md from conf/
	$(BIN)/python -m finetune.config.reference_page docs/reference/configuration.md

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
