# Every target sets up what it needs; `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
ARGS ?=

# Bash has a SECONDS of its own, so only the one given to make counts.
ifeq ($(origin SECONDS),command line)
DEMO_SECONDS := --seconds $(SECONDS)
endif

.PHONY: help setup demo test check format bench kafka

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# Written last, so that an interrupted installation is begun again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"everlearn needs Python 3.11 or later, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	@$(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "installing the versions of constraints.txt into $(VENV)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -b constraints.txt -e '.[dev]'
	@touch $@

# The learner's kernels, compiled once for as long as its sources stay as they are.
$(KERNELS): $(INSTALLED) $(wildcard learners/*.py learners/*/*.py learners/*/*/*.py streams/*.py streams/*/*.py)
	@$(BIN)/python -m streams.warmup
	@touch $@

setup: $(INSTALLED) $(KERNELS) ## make .venv with the pinned versions, compile the kernels
	@:

demo: setup ## embedded broker, shoppers and a node; SECONDS=60 makes it end by itself
	@$(BIN)/everlearn demo $(DEMO_SECONDS) $(ARGS)

test: setup ## every test, those on a real Apache Kafka included; skipped ones are listed with the reason
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(INSTALLED) ## format, lint, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_layers.py

format: $(INSTALLED) ## let ruff format and mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## the benchmarks, one JSON row a line
	@$(BIN)/everlearn bench all --json $(ARGS)

kafka: $(INSTALLED) ## a local Apache Kafka on a loopback port, until Ctrl-C
	@$(BIN)/everlearn kafka $(ARGS)
