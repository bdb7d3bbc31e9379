# Everyday verbs. Every target sets up what it needs; a fresh machine wants Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= .

.PHONY: setup proto lock check test fast demo serve bench faults clean released

setup: $(VENV)/.ready

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("idtrace needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
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

lock:
	@$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements/dev.txt

check: setup
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry --no-ansi . 
	@$(BIN)/codespell README.md ARCHITECTURE.md CHANGELOG.md idtrace registry resolver loadtest tests proto
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against proto/released.json
	@$(BIN)/pytest -q tests/unit tests/scenarios -p no:cacheprovider

test: setup
	@$(BIN)/pytest -q

demo: setup
	@$(BIN)/idtrace demo

serve: setup
	@$(BIN)/idtrace demo --serve

bench: setup
	@$(BIN)/python -m loadtest

clean:
	@rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
