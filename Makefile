# Lumina: the commands of this repository. `make demo` and `make test` work on a fresh machine.
.DEFAULT_GOAL := help
PY := .venv/bin/python
LUMINA := .venv/bin/lumina
NODE := sandbox/lumina/sandbox/node

.PHONY: help setup demo test check docs bench faults model lock clean

help: ## Show these commands
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: .venv/.ready ## Set up everything (the other targets do it by themselves)
.venv/.ready: scripts/setup pyproject.toml requirements.lock llama.lock $(NODE)/package-lock.json
	@scripts/setup

demo: .venv/.ready ## Five real requests, end to end
	@$(LUMINA) demo

test: .venv/.ready check ## All checks and tests, with real NATS, llama.cpp and sandbox
	@$(PY) -m pytest

check: .venv/.ready ## Format, lint, types, layers
	@mkdir -p .cache
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/pyright --warnings >.cache/pyright.log || { cat .cache/pyright.log; exit 1; }
	@.venv/bin/lint-imports --no-logo >.cache/imports.log || { cat .cache/imports.log; exit 1; }

docs: .venv/.ready ## Write docs/events.md again from the types
	@$(PY) -m lumina.cli.eventdocs

bench: .venv/.ready ## Measure orchestration overhead, latency, verify, boot
	@$(PY) -m tests.bench

faults: .venv/.ready ## Damage real logs in every way we know of: is it reported, and where?
	@$(PY) -m tests.faults

model: ## Train the demo model again (hours; installs torch)
	@scripts/train

lock: ## Write the lock files again from pyproject.toml
	@scripts/lock

clean: ## Remove what setup made in this folder
	rm -rf .venv .cache $(NODE)/node_modules
