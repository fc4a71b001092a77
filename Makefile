# Two commands do everything: `make demo` and `make test`. Both set up .venv on their first call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two threads at most: tiny tensors get slower, not faster, with more; full-size runs set their own.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-all lint docs install clean

demo: $(VENV)/.installed ## the whole job on the embedded tiny model
	$(BIN)/smpo demo

test: $(VENV)/.installed ## the fast suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.installed ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed ## style, types
	$(BIN)/ruff check .
	$(BIN)/mypy

# (not --quiet: it hides warnings from --strict as well)
docs: $(VENV)/.installed ## the documentation as a site, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(VENV)/.installed ## the virtual environment

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smpo needs Python >= 3.11, got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

clean: ## remove the environment and all runs
	rm -rf $(VENV) runs site
