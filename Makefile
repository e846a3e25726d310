# `make serve` and `make test` take a fresh checkout to ready and to a verdict; both install into .venv, and again only when what is pinned has changed.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PEERS := .venv-peers
PINS := pyproject.toml constraints.txt

.PHONY: serve test test-cluster lint docs load parity bench footprint soak peers

# PORT, from the environment or as `make serve PORT=8123`, reaches the command by itself.
serve: $(VENV)/serve.stamp
	@exec $(BIN)/heedful serve

test: lint docs
	$(BIN)/pytest -m "not nightly"

# Every test on a real Ray cluster, also those that break one for minutes: for the night, since they take longer than five.
# Those with several nodes need root, and redis-server where the head is restarted; else they are skipped.
test-cluster: $(VENV)/test.stamp
	$(BIN)/pytest tests/cluster

# How near exported graphs are to their checkpoints, for every family; docs/export.md shows the table.
parity: $(VENV)/test.stamp
	@$(BIN)/python -m tests.export.parity_table

# Everything that the project asks of its own speed, in one table; docs/performance.md says how to read it.
# Parts of it: make bench BENCH='--only translation-int8 --quick'.
bench: $(VENV)/bench.stamp
	$(BIN)/python -m loadtests.bench $(BENCH)

# How long each host takes to its first answer, and what it then holds.
footprint: $(VENV)/test.stamp
	$(BIN)/python -m loadtests.footprint

# Whether memory stays flat through ten minutes of full load.
soak: $(VENV)/test.stamp
	$(BIN)/python -m loadtests.soak $(SOAK)

# LitServe and BentoML, whose dependencies do not go with Ray's, for `make bench`, in an environment of their own.
peers: $(PEERS)/stamp

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Users for every task against a running service; build/load.html is the report, missed objectives are exit status 2.
URL ?= http://127.0.0.1:8000
SHAPE ?= step
PEAK ?= 20
SECONDS ?= 60
load: $(VENV)/test.stamp
	@mkdir -p build
	$(BIN)/locust --headless --only-summary -f loadtests/locustfile.py --host $(URL) --html build/load.html \
		--shape $(SHAPE) --peak $(PEAK) --seconds $(SECONDS)

# The site, into build/docs; a warning is an error.
docs: $(VENV)/test.stamp
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "Heedful needs Python 3.11 or newer and '$(PYTHON)' is not one: install it, or name yours with make PYTHON=/path/to/python3." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.stamp: $(PINS) | $(BIN)/pip
	$(PIP) install --constraint constraints.txt --editable '.[cpu]'
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp loadtests/peers/requirements.txt
	$(PIP) install --constraint constraints.txt --requirement loadtests/peers/requirements.txt
	@touch $@

$(PEERS)/stamp: loadtests/peers/requirements-servers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check install --requirement $<
	@touch $@

$(VENV)/test.stamp: $(PINS) | $(BIN)/pip
	$(PIP) install --constraint constraints.txt --editable '.[cpu,dev,train]'
	@touch $@
