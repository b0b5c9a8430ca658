# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.DEFAULT_GOAL := help

.PHONY: help setup demo test check format bench kafka

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(BIN)/everlearn: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(BIN)/everlearn ## make .venv with the pinned dependencies (uv from pip)

demo: setup ## embedded broker, shoppers and a node; make demo SECONDS=60 ends by itself
	@$(BIN)/everlearn demo $(if $(findstring command,$(origin SECONDS)),--seconds $(SECONDS),)

test: setup ## every test, those on a real Apache Kafka included
	@$(BIN)/python -m pytest

check: setup ## formatting, lint, types, layers
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/python -m pytest -q tests/test_layers.py

format: setup ## let ruff format and mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup ## the benchmarks, one JSON row a line
	@$(BIN)/everlearn bench all --json

kafka: setup ## a local Apache Kafka on a loopback port, until Ctrl-C
	@$(BIN)/everlearn kafka
