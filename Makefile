# `make` says what there is. On a fresh machine every target first makes .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The oldest first: the constraints were taken on 3.11, and wheels come late for new ones.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
WORKERS ?= 2
# Two test workers share the cores; torch's own threads on top of them slow all of them down.
TEST_ENV := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

.PHONY: help venv demo test test-slow lint format bench docs clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: .venv/.complete ## the virtual environment with everything in it

demo: .venv/.complete ## the whole way on photos that it makes itself, into ./demo
	$(BIN)/skinbatch demo demo

test: lint ## what has to pass before a commit
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: .venv/.complete ## the tests that take minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

lint: .venv/.complete ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.complete ## put imports and layout in order
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: .venv/.complete ## speed and memory beside the bare models and Ray Data
	$(BIN)/python jobs/benchmark.py

docs: .venv/.complete ## the generated pages of docs/
	$(BIN)/python jobs/make_docs.py

clean: ## everything that make has made
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# MMCV_WITH_OPS=0: mmcv is built without its compiled operators (17 minutes); skinbatch brings the ones it needs.
# The last line: mmcv and imaug pull in opencv-python besides opencv-python-headless. Both unpack into the folder cv2, the last
# one wins, and opencv-python does not import on a machine without libGL, as most servers and containers are.
.venv/.complete: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "skinbatch needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; $(PYTHON) -m virtualenv .venv; } \
	  || { rm -rf .venv; echo "no virtual environment could be made: install python3-venv (Debian, Ubuntu) or virtualenv"; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade \
	  || { echo ".venv has no pip: install python3-venv (Debian, Ubuntu), then make clean"; exit 2; }
	MMCV_WITH_OPS=0 $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --force-reinstall --no-deps opencv-python-headless
	@touch $@
