# The commands of this repository. `make help` lists them.
PYTHON ?=
TORCH ?=
export PYTHON TORCH
BIN := .venv/bin
# torch in every test worker would start a thread per core; one each is faster and repeatable.
WORKERS ?= 2
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help venv demo test fast fuzz soak check fmt lint types layers chaos bench docs docs-check lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## create .venv from the lock files, or keep it when it is up to date (PYTHON=, TORCH=auto|cpu|cuda: docs/install.md)
	@scripts/install.sh

demo: venv ## the whole loop on the embedded model: data, training, proof (CPU is enough)
	@$(BIN)/danlu demo

test: venv ## all tests (WORKERS=2 processes; ARGS for pytest; STRICT=1: no second chance for up to three that fail)
	@$(TEST_ENV) scripts/test.sh -n $(WORKERS) $(ARGS)

fast: venv ## the tests without the slow ones
	@$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

fuzz: venv ## every operation of the REST server, asked with thousands of odd requests (a few minutes)
	@$(TEST_ENV) DANLU_FUZZ_EXAMPLES=300 $(BIN)/python -m pytest -n $(WORKERS) tests/services/api/test_schemathesis.py $(ARGS)

soak: venv ## the server and its worker under a mixed load for half an hour: no 500, no leak, no stuck job (ARGS="--minutes 3")
	@$(BIN)/python -m bench.soak $(ARGS)

check: lint types layers docs-check test ## what has to pass before a merge

fmt: venv ## format the code and sort the imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: venv ## style
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: venv ## static types
	@$(BIN)/mypy

layers: venv ## who may import whom
	@$(BIN)/lint-imports

chaos: venv ## the fault gate: 140 kills and a fault at every save, with real trainings (about an hour; ARGS for scripts/chaos.py)
	@$(TEST_ENV) $(BIN)/python scripts/chaos.py $(ARGS)

bench: venv ## training speed and memory next to other tools, in environments of their own
	@$(BIN)/python -m bench $(ARGS)

docs: venv ## write the generated pages: errors, recipe, JSON Schema, command line
	@$(BIN)/python scripts/docs.py

docs-check: venv
	@$(BIN)/python scripts/docs.py --check

lock: ## write requirements/*.txt anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@scripts/lock.sh $(ARGS)

clean: ## remove what the tools leave behind (not .venv, build/ or your runs)
	@rm -rf dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
