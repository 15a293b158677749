# `make` lists the targets. On a fresh machine, every target first creates .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The oldest version first: constraints.txt was made on 3.11, and wheels for new versions come late.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
WORKERS ?= 2
# Two test workers share the cores. torch's own threads would slow both of them down.
TEST_ENV := OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

.PHONY: help venv demo test test-slow lint format bench docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: .venv/.complete ## create .venv with everything in it

demo: .venv/.complete ## score made-up photos and write a report, in ./demo
	$(BIN)/skinbatch demo demo

# In the order of their names, the files of unit tests come last. They are the shortest, so both workers end at about the same time.
test: lint ## check style and types and run the tests, before a commit
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: .venv/.complete ## run the tests that take minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m slow

lint: .venv/.complete ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.complete ## sort imports and format the code
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

bench: .venv/.complete ## measure speed beside plain loops and Ray Data; fails if a ratio has fallen by a tenth since its first run here
	$(BIN)/python jobs/benchmark.py --baseline jobs/bench_baseline.json

docs: .venv/.complete ## write the generated pages of docs/
	$(BIN)/python jobs/make_docs.py

clean: ## delete everything that make has created, except the baseline of make bench
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# MMCV_WITH_OPS=0 builds mmcv without its compiled operators, which take 17 minutes; skinbatch brings the ones it needs.
# The second pip install: mmcv and imaug bring opencv-python besides opencv-python-headless. Both unpack into the folder cv2, so
# the last one wins, and opencv-python cannot be imported on a machine without libGL, like most servers and containers.
.venv/.complete: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "skinbatch needs Python 3.11 or newer; name its path: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; $(PYTHON) -m virtualenv .venv; } \
	  || { rm -rf .venv; echo "cannot create a virtual environment: install python3-venv (Debian, Ubuntu) or virtualenv"; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade \
	  || { echo ".venv has no pip: install python3-venv (Debian, Ubuntu), then make clean"; exit 2; }
	MMCV_WITH_OPS=0 $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --force-reinstall --no-deps opencv-python-headless
	@touch $@
