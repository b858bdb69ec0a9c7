# Two commands matter: `make demo` and `make test`. Both set everything up first.
SHELL := /bin/bash
export TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
export HF_HUB_OFFLINE ?= 1
BIN := .venv/bin

.PHONY: help setup demo test check loop loop-quick format bench dashboards docs compose-check

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/'

setup:          ## .venv with exact pins (a no-op when it is up to date)
	@scripts/setup.sh

demo: setup     ## fetch the model, run the main job on it, load recorded runs for the pages
	@$(BIN)/driftscope model fetch smollm2-135m
	@$(BIN)/driftscope probe paired --model smollm2-135m --prompts 8 --max-tokens 64
	@$(BIN)/driftscope demo load
	@echo "To look at it: $(BIN)/driftscope serve, then http://127.0.0.1:8321"
	@echo "To have driftscope by its name in this terminal: source $(BIN)/activate"

test: setup     ## every test, the real engine and the browser included
	@scripts/test_packages.sh
	@$(BIN)/pytest -n 2 --dist loadfile

loop: setup     ## the closed loop in every mode: a page and a table, half an hour on two cores
	@$(BIN)/python examples/on_policy_loop/compare.py

loop-quick: setup ## the same with a few steps of two modes
	@$(BIN)/python examples/on_policy_loop/compare.py --quick

check: setup    ## format, lint, types, import rules, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow"

format: setup   ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboards: setup ## write the Grafana dashboards as JSON
	PYTHONPATH=dashboards/src $(BIN)/python -m driftscope_dashboards.generate

docs: setup     ## the documentation as a site in build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict

compose-check: setup ## build the image and run docker-compose.yml for real (root on Debian; installs podman)
	$(BIN)/python -m scripts.compose_check

bench: setup    ## speed and memory against verl and the plain way, as ratios
	OMP_NUM_THREADS=1 $(BIN)/python bench/token_logprobs.py
	$(BIN)/python -m bench.compare
	OMP_NUM_THREADS=1 $(BIN)/driftscope kernels bench
	$(BIN)/python -m bench.push
	$(BIN)/python bench/lint.py
	$(BIN)/python bench/drift_rates.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/pages.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/metrics_page.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/diagnosis.py
	OMP_NUM_THREADS=1 $(BIN)/python -P bench/kernels_attention.py
	OMP_NUM_THREADS=1 $(BIN)/python -P bench/vllm_plugin.py
	OMP_NUM_THREADS=1 $(BIN)/python -P bench/invariant_mode.py
