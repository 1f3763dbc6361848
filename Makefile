VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RIG ?= rigs/quickstart.yaml

.PHONY: help run test check lint types imports bench setup clean

help:                ## this list
	@awk -F ':.*## +' '/^[a-z]+:.*##/ {printf "make %-9s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY)        ## set up where needed, then run rigs/quickstart.yaml (or RIG=file)
	$(BIN)/hwvirt run $(RIG)

test: check          ## set up where needed, then everything in check and every test, two at a time
	$(BIN)/pytest -n 2 --dist loadscope

check: lint types imports  ## ruff, mypy --strict and the rules of the house
	@echo "check: sound"

lint: $(READY)
	$(BIN)/ruff check hwvirt tests tools

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/pytest -q tests/test_imports.py

bench: $(READY)      ## speed beside QEMU's overlay on a second server, as ratios
	$(BIN)/python tools/bench.py

setup: $(READY)      ## Debian packages (as root, where missing) and .venv

$(READY): pyproject.toml tools/setup
	tools/setup

clean:               ## forget .venv, caches and runs
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .hypothesis
