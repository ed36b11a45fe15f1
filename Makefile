# Needs python3 (3.11 or later) and make; everything else is made or fetched by the targets themselves.
PYTHON3 ?= python3
BIN := .venv/bin
# Written by tools/venv when the environment holds exactly what constraints.txt says: all of it, what running takes, or all of
# it and what the benchmarks compare with.
READY := .venv/softcxl.ready
RUNS := .venv/softcxl.runs
PEERS := .venv/softcxl.bench
PYTEST := $(BIN)/python -m pytest
# Tests run side by side, as many as there are processors; those of one file one after the other, as they share a guest.
JOBS ?= $(shell nproc)
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile

.PHONY: help demo demo-linux demo-pooling demo-pool test test-unit test-guest coverage-table lint format docs bench clean venv
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

NATIVE := tools/native.py $(wildcard src/softcxl/pool/core/*)

$(READY): pyproject.toml constraints.txt tools/venv $(NATIVE)
	@$(PYTHON3) tools/venv .venv

$(RUNS): pyproject.toml constraints.txt tools/venv $(NATIVE)
	@$(PYTHON3) tools/venv .venv run

$(PEERS): pyproject.toml constraints.txt tools/venv $(NATIVE)
	@$(PYTHON3) tools/venv .venv bench

venv: $(READY) ## the Python environment, in .venv

demo: $(RUNS) ## a fabric of CXL devices and switches, used and broken, in this process (seconds)
	@$(BIN)/python examples/demo.py

demo-linux: $(RUNS) ## boot Linux over two CXL devices written in Python; fetches what it needs first
	@$(BIN)/python examples/demo_linux.py

demo-pooling: $(RUNS) ## two Linux guests share a switch and its memory, and a fabric manager says who has what
	@$(BIN)/python examples/demo_pooling.py

demo-pool: $(RUNS) ## processes and two Linux guests share a pool of memory, while devices, programs and its server die
	@$(BIN)/python examples/demo_pool.py

test: test-unit test-guest ## everything: unit tests, then tests in real guests

test-unit: $(READY) ## the tests that need no guest (some minutes)
	@$(BIN)/softcxl lab core >/dev/null
	@$(PYTEST) -q $(SIDE_BY_SIDE) -m "not guest"

test-guest: $(READY) ## the tests that boot Linux (minutes); fetches and builds what it needs first
	@$(BIN)/softcxl lab setup
	@$(BIN)/softcxl lab kernel build
	@$(PYTEST) -v $(SIDE_BY_SIDE) -m guest

COVERAGE := docs/reference/coverage.json

coverage-table: $(READY) ## what the tests exercise of the standard, noted for the docs (minutes); runs them all
	@$(BIN)/softcxl lab setup
	@$(BIN)/softcxl lab kernel build
	@$(PYTEST) -q $(SIDE_BY_SIDE) --record-coverage=$(COVERAGE)

lint: $(READY) ## ruff, mypy --strict and the architecture's import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy src tests
	@$(BIN)/lint-imports --no-logo

format: $(READY) ## rewrite the sources in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(READY) ## the documentation in docs/_build/html, its examples executed
	@$(BIN)/python -m sphinx -W --keep-going -q -b doctest docs docs/_build/doctest
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

bench: $(PEERS) ## what it costs, as ratios against named peers
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

clean: ## everything that was made in this checkout (not the shared download cache)
	rm -rf .venv build dist docs/_build docs/reference/generated .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache .coverage
	find src tests docs examples benchmarks tools -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
