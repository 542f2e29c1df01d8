# What a developer does with photoz; CI calls the same targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORE ?= ./photoz-store
# Docker's images between two runs of test-images.
TEST_IMAGES ?= build/test-images
# Processes that run tests.
WORKERS ?= 4

.PHONY: help setup demo lint test test-all test-images test-apptainer bench bench-accuracy chaos fuzz nightly test-torchvision clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with photoz-job and everything the tests need

# Made again only when the dependencies change, so that it needs no network after the first time.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: photoz needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## the whole chain on the embedded sky, from galaxies to a report (some minutes on 2 cores)
	@$(BIN)/photoz-job run --survey embedded --name demo --store $(STORE) > $(VENV)/demo.json
	@$(BIN)/python -c 'import json; print("\nThe report to open:", json.load(open("$(VENV)/demo.json"))["report"])'

lint: setup  ## ruff, mypy, import-linter, shellcheck, yamllint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z '*.sh' .ci/run | xargs -0 $(BIN)/shellcheck
	git ls-files -z '*.yml' '*.yaml' | xargs -0 --no-run-if-empty $(BIN)/yamllint --strict

test: lint  ## lint, types and the quick tests
	$(BIN)/python -m pytest -m "not real" -n 2

# Lint runs beside the tests. Most real tests wait for servers: four workers keep two cores busy.
test-all: setup  ## lint, types and every test but that of Apptainer, those against real servers, clusters and containers too (20 minutes on 2 cores)
	@$(MAKE) --no-print-directory lint > $(VENV)/lint.log 2>&1 & lint=$$!; \
	$(BIN)/python -m pytest -m "not apptainer" -n $(WORKERS) --dist loadgroup 2>&1 | tee $(VENV)/tests.log; \
	tests=$${PIPESTATUS[0]}; \
	wait $$lint || { cat $(VENV)/lint.log; echo "make: lint failed, see above; of the tests:"; tail -n 1 $(VENV)/tests.log; exit 1; }; \
	exit $$tests

test-images: setup  ## of these, those of the image alone; its layers stay for the next time (root; apt: docker.io docker-compose iptables mmdebstrap)
	TEST_IMAGES=$(TEST_IMAGES) $(BIN)/python -m pytest -n 0 \
		tests/test_containers.py tests/test_compose.py tests/test_kubernetes.py

test-apptainer: setup  ## build the .sif and run the chain with it on a Slurm cluster (root; apptainer, Slurm, those of test-images)
	TEST_IMAGES=$(TEST_IMAGES) $(BIN)/python -m pytest -n 0 tests/test_apptainer.py

bench: setup  ## measure speed and memory beside their limits, and write docs/results.md (half an hour on 2 quiet cores)
	set -e; for topic in loading computing ranks reads slices memory requests evaluating; do $(BIN)/python -m benchmarks.write $$topic; done

bench-accuracy: setup  ## measure accuracy over seeds, and write docs/results.md (ten minutes on 2 cores)
	$(BIN)/python -m benchmarks.write accuracy --store $(STORE)

chaos: setup  ## kill jobs and break their services some 1,500 times, and write docs/reliability.md (half an hour)
	$(BIN)/python -m tests.chaos --write docs/reliability.md

fuzz: setup  ## coverage-guided fuzzing of all that reads untrusted bytes, a minute each
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*sorted(TARGETS))'); do \
		$(BIN)/python -m tests.fuzz $$target --seconds 60; done

nightly: chaos fuzz test-torchvision  ## what is long or random: chaos, fuzzing, torchvision's networks (an hour and a half on 2 cores)

# torchvision does not import beside the CPU torch of the other environment, so it has one of its own (5.5 GB).
TORCHVISION := .venv-torchvision
test-torchvision: setup  ## the tests of torchvision's networks, in an environment of their own
	test -x $(TORCHVISION)/bin/python || $(PYTHON) -m venv $(TORCHVISION)
	$(TORCHVISION)/bin/python -m pip install -qq --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 -e '.[dev]'
	$(TORCHVISION)/bin/python -m pytest -n 0 tests/test_torchvision.py tests/test_scaling.py

clean:  ## remove what make has made, but no store
	rm -rf $(VENV) .venv-torchvision .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
