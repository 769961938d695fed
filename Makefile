# Every target sets up what it needs by itself, from pins with hashes, and only when the pins changed.
# `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.venv-sam/bin:$(PATH)
OPERATE = $(BIN)/python -m mailer_ops.operate --stack "$(STACK)"
export PYTHONPATH := src:tests
export SAM_CLI_TELEMETRY := 0

FUNCTION ?= SendFunction
EVENT ?= events/send.json
PORT ?= 4566
SMTP ?=
CONSOLE_PORT ?= 4567
STACK ?= tenantmail
DO ?= list
HOURS ?= 1
BODY ?=
SINCE ?=
LOG ?=
NAME ?=
ARCHITECTURE ?= arm64
BENCHMARKS := $(patsubst tests/tools/bench/%/__main__.py,tools.bench.%,$(wildcard tests/tools/bench/*/__main__.py))
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo up tenant down invoke test test-aws bench prove lint audit format build client deploy lock upgrade render pictures \
    console dlq trouble ask pause resume erase mark replay

help: ## List the targets
	@if [ -t 1 ] && [ -z "$${NO_COLOR-}" ]; then bold=$$(printf '\033[1m') plain=$$(printf '\033[0m'); fi; \
	grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' -v b="$${bold-}" -v p="$${plain-}" '{printf "  %s%-8s%s %s\n", b, $$1, p, $$2}'

setup: ## Install everything into .venv* (and Python 3.13 if there is none)
	@python3 tests/tools/environments.py setup

demo: setup ## On a local AWS: deploy, send for four tenants, show each .eml
	@$(BIN)/python -m tools.local_aws demo

up: setup ## Keep a local AWS running (PORT=4566, SMTP=host:port of an inbox)
	@$(BIN)/python -m tools.local_aws up --port "$(PORT)" --smtp "$(SMTP)"

tenant: setup ## Set up a tenant there that can send (NAME=acme)
	@$(BIN)/python -m tools.local_aws tenant "$(NAME)"

down: setup ## Stop the local AWS
	@$(BIN)/python -m tools.local_aws down

invoke: setup ## Run a built function (FUNCTION=SendFunction EVENT=events/…)
	@$(BIN)/python -m tools.local_aws invoke "$(FUNCTION)" "$(EVENT)" --port "$(PORT)"

test: setup ## Run the unit, functional, template and local tests
	@$(BIN)/python -m tools.browser
	@$(PYTEST) --numprocesses=2 --dist=loadfile tests/unit tests/functional tests/template
	@$(PYTEST) tests/local

test-aws: setup ## Run the tests on a real SES sandbox (tests/aws/conftest.py)
	@$(PYTEST) tests/aws

bench: setup ## Measure
	@$(foreach bench,$(BENCHMARKS),$(BIN)/python -m $(bench);)

prove: setup ## Run what takes minutes: mutations, storms, other programs
	@$(PYTEST) tests/prove

lint: setup ## Check style, types, layers, security and dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	@$(BIN)/python tests/tools/audit.py --tolerate-unchecked

audit: setup ## Known vulnerabilities of what ships; fails if not all is checked
	@$(BIN)/python tests/tools/audit.py

console: setup ## Open the operators' console, on this machine (CONSOLE_PORT=4567)
	@$(OPERATE) console --port "$(CONSOLE_PORT)"

dlq: setup ## Dead letters (DO="list|redrive|drop --tenant T --reason C")
	@$(OPERATE) dlq $(DO)

trouble: setup ## Whose mail does not go out, why, who must do what (HOURS=1)
	@$(OPERATE) trouble --hours "$(HOURS)"

ask: setup ## Call the API (DO="GET /tenants/acme/provider" BODY=file)
	@$(OPERATE) ask $(DO) $(if $(BODY),--body "$(BODY)")

pause: setup ## Stop SendFunction from taking requests off the queue
	@$(OPERATE) pause

resume: setup ## Let SendFunction go on
	@$(OPERATE) resume

erase: setup ## Delete what is kept (DO="request acme invoice-1"; docs/deploy.md)
	@$(OPERATE) erase $(DO)

mark: setup ## Mark tenants with suppressions, once their rows were restored
	@$(OPERATE) mark

replay: setup ## Mend a restored messages table (SINCE=2026-11-24T08:00:00Z)
	@$(OPERATE) replay --since "$(SINCE)" $(if $(LOG),"$(LOG)")

format: setup ## Let ruff format and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

build: setup ## Pack the functions for AWS (ARCHITECTURE=arm64)
	@sam build --parameter-overrides Architecture=$(ARCHITECTURE)

client: setup ## Build the callers' client as a wheel, into dist/
	@.venv-uv/bin/uv build --quiet --wheel --out-dir dist src

deploy: build ## Deploy to your AWS account; asks before it changes anything
	@sam deploy --parameter-overrides Architecture=$(ARCHITECTURE)

lock: ## Pin pyproject.toml's dependencies; keeps the pins that fit
	@python3 tests/tools/environments.py lock

upgrade: ## Pin the newest versions
	@python3 tests/tools/environments.py lock --upgrade

pictures: setup ## Take the screenshots of docs/console.md
	@TENANTMAIL_PICTURES=docs/console $(PYTEST) tests/functional/test_console_browser.py -k pictures

render: setup ## Compose IN/*.json into OUT: .eml and .envelope.json, or .rejected
	@$(BIN)/python -m mailer_ops.render "$(IN)" "$(OUT)"
