# Everyday verbs. Every target sets up what it needs; a fresh machine wants Python >= 3.11 and make, nothing else.
#
#   setup  virtual environment with pinned tools       demo     a whole tree of nodes on this machine, shown and checked
#   check  format, lint, types, contracts, unit tests  serve    the same tree, left running until Ctrl-C
#   test   every test, with what they must cover       bench    how fast this machine registers and resolves
#   proto  generate idtrace/v1 from proto/             released take proto/ as published: later changes must not break it
#   lock   pin all dependencies anew                   clean    remove whatever these made
#   engines  a real Redis and a real Cassandra (NODES=1 or 3), left running; engines-stop ends them
#   faults   the long tests that kill, pause and starve nodes, among them a Cassandra of three (about 45 minutes)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= .
# Test processes at a time. Each starts nodes of its own, on ports that the system chooses.
JOBS ?= 2
# Nodes of Cassandra: 1, or 3 for what a cluster does when one of them dies.
NODES ?= 1
# make demo and make serve: 1 for a Cassandra and a Redis in place of the embedded defaults.
ENGINES ?= 0
DEMO = $(if $(filter 1,$(ENGINES)),$(BIN)/python -m tests.engines.demo,$(BIN)/idtrace demo)
PYTEST := $(BIN)/pytest -q -n $(JOBS) -p no:cacheprovider

.PHONY: setup proto lock check test demo serve bench clean released engines engines-stop faults
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

$(VENV)/.pins: requirements/dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Install Python 3.11 or newer," \
		"or name the one you have: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("idtrace needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + \
		". Name a newer one: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module." \
		"Debian and Ubuntu keep it in a package of its own: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) (about a minute, once)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@# Everything that is needed is listed, so nothing is looked up: pip would else try the newest release of what one
	@# package wants of another with an extra, and refuse it for having no hash here.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@touch $@

$(VENV)/.ready: $(VENV)/.pins pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Generated code is committed; a test regenerates it and compares.
proto: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(OUT) --grpc_python_out=$(OUT) \
		--mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) proto/idtrace/v1/*.proto
	@rm -f $(OUT)/idtrace/v1/record_pb2_grpc.py*

# The published schema: buf refuses changes that would break a client built against it.
released: setup
	@$(BIN)/buf build proto -o proto/released.json

lock: setup
	@$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements/dev.txt

check: setup
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry --no-ansi .
	@$(BIN)/codespell README.md ARCHITECTURE.md CHANGELOG.md Makefile .ci helm idtrace registry resolver loadtest tests proto
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against proto/released.json
	@$(PYTEST) tests/unit tests/scenarios tests/test_*.py

# Coverage goes through files: each test process writes one, and the gate reads their sum.
test: setup
	@mkdir -p var
	@COVERAGE_FILE=var/.coverage $(PYTEST) -m 'not faults' --cov --cov-branch --cov-report=json:var/coverage.json
	@$(BIN)/python tests/coverage_gate.py var/coverage.json

# Engines on free ports of loopback, on files under var/engines. Tests use them, or start and stop their own.
engines: setup
	@$(BIN)/python -m tests.engines start --nodes $(NODES)

engines-stop: setup
	@$(BIN)/python -m tests.engines stop

# In one process, for each test has the three nodes to itself.
faults: setup
	@$(BIN)/pytest -q -p no:cacheprovider -m faults

# With ENGINES=1 on a real Cassandra and a real Redis: those of `make engines` or, where none runs, for as long as it takes.
demo: setup
	@$(DEMO)

serve: setup
	@$(DEMO) --serve

bench: setup
	@$(BIN)/python -m loadtest

clean:
	@[ ! -e var/engines/standing ] || $(BIN)/python -m tests.engines stop
	@rm -rf $(VENV) var .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
