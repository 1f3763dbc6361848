.PHONY: run test check setup clean
VENV := .venv
BIN := $(VENV)/bin

run: $(VENV)/.ready          ## set up where needed, then run the quickstart rig
	$(BIN)/hwvirt run rigs/quickstart.yaml

test: check                  ## ruff, mypy, then every test
	$(BIN)/pytest

check: $(VENV)/.ready        ## ruff, mypy --strict, the import rule
	$(BIN)/ruff check hwvirt tests tools
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_imports.py

setup: $(VENV)/.ready        ## Debian packages (as root, where missing) and .venv

$(VENV)/.ready: pyproject.toml tools/setup
	tools/setup
	@touch $@

clean:                       ## forget .venv and the runs
	rm -rf $(VENV) runs .mypy_cache .ruff_cache
