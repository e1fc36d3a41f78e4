# One command each: `make demo`, `make test`, `make check`, `make faults` (slow). All of them install what they need into .venv first.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/installed.stamp
PYTEST_ARGS ?=

.PHONY: install demo test faults openapi check format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed: got {sys.version.split()[0]}")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv \
		|| { echo "a virtual environment cannot be made: on Debian and Ubuntu install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,service,postgres]'
	touch $(STAMP)

demo: install
	$(BIN)/spectune demo

test: install
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder $(PYTEST_ARGS)

faults: install
	SPECTUNE_FAULTS=1 $(BIN)/python -m pytest tests/integration/test_faults.py tests/integration/test_stops.py \
		tests/integration/test_mlflow_faults.py tests/integration/test_ill_mlflow.py tests/integration/test_serve.py \
		tests/integration/test_service_faults.py \
		tests/integration/test_compose.py tests/service/api/test_fuzz.py tests/service/api/test_contract.py \
		tests/service/ledger/test_reports_machine.py tests/trainers/test_fused_equals_solo.py \
		tests/trainers/test_population_machine.py $(PYTEST_ARGS)

openapi: install
	$(BIN)/python -m spectune.service.api.openapi > docs/openapi.json

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
