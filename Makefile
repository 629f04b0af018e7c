# make bench   set up (once) and try the suite
# make test    set up (once) and run all tests, a process and a thread a core
# make check   set up (once) and run ruff, mypy and import-linter
# All set-up goes into .venv; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: bench test check clean

bench: .venv/.ready
	$(BIN)/bench orders
	$(BIN)/bench show radial
	$(BIN)/bench run --orders raster,radial

test: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "orderbench needs Python 3.11 or newer, and '$(PYTHON)' is older or missing; say make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
