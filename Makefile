# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE  # in some containers; then each of hundreds of processes would compile all of it again

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP) ## install what is missing into .venv

# uv is found, or fetched into a small environment of its own; it finds Python 3.12 by .python-version.
$(STAMP): requirements/lock.txt pyproject.toml plugins/lerobot_env_zk0/pyproject.toml
	@scripts/install

demo: $(STAMP) ## the whole job on the embedded default: four sites, one policy, a few minutes
	@$(BIN)/zk0 demo || exit $$(( $$? == 130 ? 0 : $$? ))  # what Ctrl-C has stopped needs no error of make's beside

PYTEST := $(BIN)/python -m pytest --durations=10 -q --cov

test: $(STAMP) ## what needs no service, with coverage of src, flows and tasks
	@$(PYTEST) -m "not services" -n logical --cov-report=term-missing:skip-covered

# Services are also waited for, so there may be more at a time than cores. Measuring the coverage of every process
# that they start takes a sixth of its start, so only `make test-all` does.
test-services: $(STAMP) ## real servers and clients on loopback, and whole runs
	@$(BIN)/python -m pytest --durations=10 -q -m services -n 4 $(COVERAGE)

test-release: $(STAMP) ## before a release: a whole week of nightly runs, and variants of what test-services runs; hours
	@$(BIN)/python -m pytest --durations=10 -q -m release

test-all: test ## both, and the coverage of both together
	@$(MAKE) --no-print-directory test-services COVERAGE="--cov --cov-append --cov-report= --cov-fail-under=0"
	@$(BIN)/coverage report --format=total --fail-under=94

lint: $(STAMP) ## style, types, and who may know whom
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

# Flower's own simulation, a peer, is an extra of Flower's that the ordinary lock leaves out.
bench: $(STAMP) ## every figure beside its peers, about an hour; goes on where it was stopped
	@scripts/install-bench
	@$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## small sizes, about ten minutes, compared with earlier ones on this machine
	@scripts/install-bench
	@$(BIN)/python -m benchmarks --quick && $(BIN)/python -m benchmarks --compare

ui: $(STAMP) ## MLflow's pages, opened at the table of runs
	@$(BIN)/zk0 ui

# With Debian's chromium, of what `make demo` left here.
screens: $(STAMP) ## pictures of MLflow and the report for docs/images/screens
	@$(BIN)/python tests/support/screens.py

up: $(STAMP) ## Prefect server and worker, with the nightly and weekly schedules
	@$(BIN)/zk0 up

down: ## stop them
	@$(BIN)/zk0 down

wheel: $(STAMP) ## zk0 for where there is no clone, into dist/
	@$(BIN)/python -m hatchling build -t wheel

docs: $(STAMP) ## the pages of docs/ as a site, into site/; a link that leads nowhere is an error
	@$(BIN)/python -m mkdocs build

lock: ## resolve anew and write requirements/*.txt
	@scripts/lock

.PHONY: help install demo test test-services test-release test-all lint bench bench-quick ui screens up down wheel docs lock
