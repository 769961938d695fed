# Every target sets up what it needs by itself, from pins with hashes, and only when the pins changed.
# `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.venv-sam/bin:$(PATH)
export PYTHONPATH := src:tests
export SAM_CLI_TELEMETRY := 0

FUNCTION ?= SendFunction
EVENT ?= events/send.json

.PHONY: help setup test lint format up down demo invoke bench prove test-aws lock upgrade

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-9s\033[0m %s\n", $$1, $$2}'

setup: ## Install everything into .venv* (Python 3.13 is found, or fetched by uv)
	@python3 tests/environments.py setup

test: setup ## Run the unit, functional, template and local tests
	@$(BIN)/python -m pytest tests/unit
	@$(BIN)/python -m pytest tests/functional tests/template tests/local

lint: setup ## Check style, types, layers, security, dependencies and templates
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

format: setup ## Let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## Pin pyproject.toml's dependencies with hashes; keeps the pins that still fit
	@python3 tests/environments.py lock

upgrade: ## Pin the newest versions
	@python3 tests/environments.py lock --upgrade
