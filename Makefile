# MiniWin: each target sets up .venv when needed and says what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Modules are compiled when they are first imported, for all processes to come: most of what is installed never is. So
# bytecode is written even where the environment says otherwise.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup demo test test-machines lint types bench docs lock clean

help:
	@echo "make demo    search, confirm, train, generate: the whole line on this machine, about 5 minutes on 2 cores"
	@echo "make test    ruff, mypy and the whole test suite, about 7 minutes on 2 quiet cores"
	@echo "make test-machines   the suite as other processors compute: other instructions, kernels, threads; half an hour"
	@echo "make lint    ruff and mypy only"
	@echo "make bench   the quick benchmark against peers, about 11 minutes on 2 quiet cores"
	@echo "make docs    the pages of docs/ as a site with search, in build/docs"
	@echo "make clean   remove .venv, caches and what the demo made"

$(STAMP): requirements.lock pyproject.toml setup.py $(wildcard blocks/native/*.[ch])
	@echo "== setting up $(VENV) from requirements.lock (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "miniwin needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 " )'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	@echo "== demo: a real search, its winner confirmed against a baseline, a zoo entry and generated text"
	@$(BIN)/python -m miniwin demo --workers 2

# mypy runs beside the first tests: alone it leaves a core idle. ruff is quick, and says first what is wrong.
test: $(STAMP)
	@$(BIN)/python tests/support/room.py
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@echo "== tests, and mypy beside them"
	@said=$$(mktemp); $(BIN)/mypy >$$said 2>&1 & mypy=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder; \
	tests=$$?; wait $$mypy; types=$$?; echo "== mypy"; cat $$said; rm -f $$said; exit $$((tests ? tests : types))

test-machines: $(STAMP)
	@echo "== the suite once for each way in which another machine may compute; about half an hour on 2 cores"
	@$(BIN)/python tests/support/machines.py

lint: $(STAMP)
	@echo "== ruff and mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

bench: $(STAMP)
	@echo "== quick benchmark: interleaved with its peers, about 11 minutes; results go to benchmarks/results"
	@$(BIN)/python -m benchmarks

docs: $(STAMP)
	@echo "== the documentation, into build/docs/index.html"
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "mkdocs-material>=9.5" "mkdocstrings[python]>=0.27"
	@$(BIN)/python -m mkdocs build --quiet --strict

lock: $(STAMP)
	@echo "== requirements.lock from a fresh environment"
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet torch==2.13.0 "setuptools>=77" wheel
	@.venv-lock/bin/python -m pip install --quiet --no-build-isolation -e ".[mlflow,dev,bench]"
	@.venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu.*//' > requirements.lock
	@rm -rf .venv-lock

clean:
	@echo "== removing .venv, caches, build output and demo/"
	@rm -rf $(VENV) .venv-lock build dist *.egg-info demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
