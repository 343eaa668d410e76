# Every target does its own set-up; a second run re-uses what is there.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
XDIST ?= 2

.PHONY: setup components demo serve test test-soak test-effects test-clients bench check fix dist generate clean

setup: $(STAMP)

$(STAMP): pyproject.toml uv.lock scripts/setup
	@scripts/setup "$(PYTHON)" "$(VENV)"
	@touch $@

components: $(STAMP)
	@scripts/components

demo: components
	@$(BIN)/python -m demo $(DEMO_ARGS)

serve: components
	@exec $(BIN)/mooring serve $(SERVE_ARGS)

test: components
	@scripts/test -n $(XDIST) --dist loadgroup -m "not soak and not clients" tests $(TEST_ARGS)

test-soak: components
	@scripts/tier "make test-soak" soak tests

test-effects: components
	@$(BIN)/python scripts/effects.py

test-clients: components
	@scripts/tier "make test-clients" clients "tests/clients"

bench: components
	@scripts/components nginx=nginx-light wrk=wrk gcc=gcc
	@$(BIN)/python -m bench $(BENCH_ARGS)

check: $(STAMP)
	@scripts/check

fix: $(STAMP)
	@scripts/fix

generate: $(STAMP)
	@scripts/generate

dist: $(STAMP)
	@$(BIN)/uv build --out-dir dist

clean:
	rm -rf $(VENV) dist .mooring
