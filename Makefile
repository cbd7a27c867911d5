# `make` lists what there is. Needs make and Python >= 3.11; everything else goes into .venv.

.DEFAULT_GOAL := help
.PHONY: help demo demo-offline test test-oldest test-newest check fuzz format docs-tables clean

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
WORKERS ?= 2
# One thread per worker: small models gain nothing from more, and the workers share the cores.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install, fetch a small language model, adapt it from books to kitchen, hotels and apps
	$(BIN)/guidebook adapt examples/quickstart.yaml

demo-offline: $(VENV)/.demo ## the same on the base that comes with the package, without any network
	$(BIN)/guidebook adapt examples/quickstart-offline.yaml

test: $(VENV)/.test ## install what tests need, then run all of them
	$(PYTEST)

# What pyproject.toml allows of the two libraries whose insides we touch, at its two ends.
OLDEST := "transformers==5.20.0" "peft==0.21.0"
NEWEST := "transformers<6" "peft<0.23"

test-oldest: PAIR := $(OLDEST) ## the adapters' tests on the oldest transformers and peft that are allowed
test-newest: PAIR := $(NEWEST) ## the same on the newest
test-oldest test-newest: test-%: $(VENV)/.made
	$(BIN)/python -m venv $(VENV)-$*
	grep -vE '^(transformers|peft|tokenizers|huggingface_hub)==' constraints.txt > $(VENV)-$*/constraints.txt
	$(VENV)-$*/bin/python -m pip install -q --upgrade -c $(VENV)-$*/constraints.txt -e '.[test]' $(PAIR)
	$(PYTEST:$(BIN)/%=$(VENV)-$*/bin/%) tests/adapters tests/test_families.py

fuzz: $(VENV)/.test ## 10,000 files, recipes, audits and pipes, right and wrong: an answer or one clear message
	FUZZ_PROFILE=fuzz $(PYTEST) tests/fuzz

check: $(VENV)/.dev ## style, types, import arrows and fast tests: before every commit
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py
	$(PYTEST) -q -m "not slow"

format: $(VENV)/.dev ## put the code into the house's form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs-tables: $(VENV)/.demo ## write the tables of recipe fields, families, methods and papers into docs/
	$(BIN)/python -m guidebook.cli.fields docs/recipes.md
	$(BIN)/python -m guidebook.cli.families docs/families.md
	$(BIN)/python -m guidebook.cli.catalogue docs

clean: ## remove the environment and what tools left behind, not runs/
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build

# Stamps: made once, and again when the versions or the project file change.
$(VENV)/.made:
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then touch $@; exit 0; fi; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "making $(VENV) with $$($$candidate --version)"; \
			$$candidate -m venv $(VENV) && touch $@; exit $$?; \
		fi; \
	done; \
	echo "guidebook needs Python 3.11 or newer, with its venv module; found: $$(python3 --version 2>&1)." >&2; \
	echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	exit 1

$(VENV)/.demo: WHAT := .
$(VENV)/.test: WHAT := .[test]
$(VENV)/.dev: WHAT := .[dev]
$(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.made constraints.txt pyproject.toml
	@echo "installing $(WHAT:.%=guidebook%); the first time this takes some minutes, torch is large"
	@$(INSTALL) -e '$(WHAT)'
	@touch $@
