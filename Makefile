# One word a chore. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PG ?= 18
KERNELS := $(shell find formats engine server -name '*.pxd') $(patsubst %.pxd,%.py,$(shell find formats engine server -name '*.pxd'))

.PHONY: build demo test check lint bench clean

build: $(VENV)/built

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# An editable install compiles the kernels beside their sources; it fails if one does not compile.
$(VENV)/built: pyproject.toml $(KERNELS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: build
	$(BIN)/python -m tools.demo --pg $(PG)

test: build
	$(BIN)/python -m pytest

lint: build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) build *.egg-info
	find formats engine server -name '*.so' -delete -o -name '*.c' -delete
