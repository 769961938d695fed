# Every target installs what it needs, from hashed pins, and only if the pins have changed. `make help` lists the targets.

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
BENCHMARKS := $(patsubst tests/tools/bench/%/__main__.py,tools.bench.%,$(wildcard tests/tools/bench/*/__main__.py))
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo up tenant down invoke test test-aws bench prove lint audit format build client deploy lock upgrade render pictures \
    console dlq trouble ask pause resume erase mark replay

help: ## List the targets
	@if [ -t 1 ] && [ -z "$${NO_COLOR-}" ]; then bold=$$(printf '\033[1m') plain=$$(printf '\033[0m'); fi; \
	grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' -v b="$${bold-}" -v p="$${plain-}" '{printf "  %s%-8s%s %s\n", b, $$1, p, $$2}'

setup: ## Install everything into .venv* (and Python 3.13 if there is none)
	@python3 tests/tools/environments.py setup

demo: setup ## Deploy to a local AWS, send for four tenants, show each .eml
	@$(BIN)/python -m tools.local_aws demo

up: setup ## Start a local AWS (PORT=4566, SMTP=host:port of an inbox)
	@$(BIN)/python -m tools.local_aws up --port "$(PORT)" --smtp "$(SMTP)"

tenant: setup ## Create a tenant there that can send (NAME=acme)
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

bench: setup ## Run the benchmarks
	@$(foreach bench,$(BENCHMARKS),$(BIN)/python -m $(bench);)

prove: setup ## Run the tests that take minutes: mutations, storms, fuzzing
	@$(PYTEST) tests/prove

lint: setup ## Check style, types, layers, security and dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	@$(BIN)/python tests/tools/audit.py --tolerate-unchecked

audit: setup ## Check shipped packages for vulnerabilities; fails if incomplete
	@$(BIN)/python tests/tools/audit.py

console: setup ## Open the operators' console on this machine (CONSOLE_PORT=4567)
	@$(OPERATE) console --port "$(CONSOLE_PORT)"

dlq: setup ## Manage dead letters (DO="list|redrive|drop --tenant T --reason C")
	@$(OPERATE) dlq $(DO)

trouble: setup ## List tenants whose mail does not go out, and why (HOURS=1)
	@$(OPERATE) trouble --hours "$(HOURS)"

ask: setup ## Call the API (DO="GET /tenants/acme/provider" BODY=file)
	@$(OPERATE) ask $(DO) $(if $(BODY),--body "$(BODY)")

pause: setup ## Stop SendFunction from receiving requests
	@$(OPERATE) pause

resume: setup ## Resume SendFunction
	@$(OPERATE) resume

erase: setup ## Erase stored data (DO="request acme invoice-1"; docs/deploy.md)
	@$(OPERATE) erase $(DO)

mark: setup ## Mark tenants with suppressions, after a restore of their rows
	@$(OPERATE) mark

replay: setup ## Repair a restored messages table (SINCE=2026-11-24T08:00:00Z)
	@$(OPERATE) replay --since "$(SINCE)" $(if $(LOG),"$(LOG)")

format: setup ## Format and fix the code with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Without parameters of their own: SAM would then ignore all those of samconfig.toml.
build: setup ## Build the functions' packages
	$(if $(ARCHITECTURE),$(error set the parameter Architecture in samconfig.toml instead (docs/deploy.md)))@sam build

client: setup ## Build the callers' client as a wheel, into dist/
	@.venv-uv/bin/uv build --quiet --wheel --out-dir dist src

deploy: build ## Deploy to your AWS account; asks before it changes anything
	@sam deploy

lock: ## Pin pyproject.toml's dependencies; keeps pins that still fit
	@python3 tests/tools/environments.py lock

upgrade: ## Pin the newest versions
	@python3 tests/tools/environments.py lock --upgrade

pictures: setup ## Take the screenshots of docs/console.md
	@TENANTMAIL_PICTURES=docs/console $(PYTEST) tests/functional/test_console_browser.py -k pictures

render: setup ## Compose IN/*.json into OUT: .eml and .envelope.json, or .rejected
	@$(BIN)/python -m mailer_ops.render "$(IN)" "$(OUT)"
