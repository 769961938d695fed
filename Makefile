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
PORT ?= 4566
SMTP ?=
STACK ?= tenantmail
DO ?= list
HOURS ?= 1
LOG ?= -
ARCHITECTURE ?= arm64
BENCHMARKS := $(patsubst tests/bench/%/__main__.py,bench.%,$(wildcard tests/bench/*/__main__.py))
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo up down invoke test test-aws bench prove lint audit format build deploy lock upgrade render dlq trouble ask pause resume replay

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[1m%-9s\033[0m %s\n", $$1, $$2}'

setup: ## Install everything into .venv* (Python 3.13 is found, or fetched by uv)
	@python3 tests/environments.py setup

demo: setup ## Deploy the template on a local AWS, send for four tenants, show every outcome and .eml
	@$(BIN)/python -m local_aws.demo

up: setup ## Keep a local AWS running with what is in the work tree (PORT=4566, SMTP=host:port of an inbox)
	@$(BIN)/python -m local_aws.up up --port $(PORT) --smtp "$(SMTP)"

down: setup ## Stop it
	@$(BIN)/python -m local_aws.up down

invoke: setup ## Run one built function as Lambda does (FUNCTION=SendFunction EVENT=events/send.json)
	@$(BIN)/python -m local_aws.invoke $(FUNCTION) $(EVENT) --port $(PORT)

test: setup ## Run the unit, functional, template and local tests
	@$(PYTEST) --numprocesses=2 --dist=loadfile tests/unit tests/functional tests/template
	@$(PYTEST) tests/local

test-aws: setup ## Run the integration tests on a real SES sandbox account (TEST_SES_…, see tests/aws/conftest.py)
	@$(PYTEST) tests/aws

bench: setup ## Measure
	@$(foreach bench,$(BENCHMARKS),$(BIN)/python -m $(bench);)

prove: setup ## Run what takes minutes: mutations, storms, other programs as witnesses
	@$(PYTEST) tests/prove

lint: setup ## Check style, types, layers, security and dependencies (the templates' linters are tests)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	@$(BIN)/python tests/audit.py --tolerate-unchecked

audit: setup ## Ask for known vulnerabilities of what ships; fails too where not all could be checked (lint only says so)
	@$(BIN)/python tests/audit.py

dlq: setup ## Work through the dead-letter queue (DO="list|redrive|drop --tenant T --request R --reason C"; STACK=tenantmail)
	@$(BIN)/python -m mailer.operate --stack $(STACK) dlq $(DO)

trouble: setup ## Show which tenants' mail does not go out, why, and who must do what (HOURS=1; STACK=tenantmail)
	@$(BIN)/python -m mailer.operate --stack $(STACK) trouble --hours $(HOURS)

ask: setup ## Call the API as yourself (DO="POST /tenants/acme/provider/disable"; STACK=tenantmail)
	@$(BIN)/python -m mailer.operate --stack $(STACK) ask $(DO)

pause resume: setup ## Stop SendFunction from taking requests off the queue, or let it go on (STACK=tenantmail)
	@$(BIN)/python -m mailer.operate --stack $(STACK) $@

replay: setup ## Tell a restored messages table the ends that it has lost (LOG=lines.json; docs/deploy.md; STACK=tenantmail)
	@$(BIN)/python -m mailer.operate --stack $(STACK) replay $(LOG)

format: setup ## Let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

build: setup ## Pack the functions for AWS (ARCHITECTURE=arm64)
	@sam build --parameter-overrides Architecture=$(ARCHITECTURE)

deploy: build ## Deploy to your AWS account; asks before it changes anything
	@sam deploy --parameter-overrides Architecture=$(ARCHITECTURE)

lock: ## Pin pyproject.toml's dependencies with hashes; keeps the pins that still fit
	@python3 tests/environments.py lock

upgrade: ## Pin the newest versions
	@python3 tests/environments.py lock --upgrade

render: setup ## Compose IN/*.json into OUT: NAME.eml and NAME.envelope.json, or NAME.rejected
	@$(BIN)/python -m mailer.render "$(IN)" "$(OUT)"
