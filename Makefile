# The book's commands. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev book test lab serve lint lean constraints clean

help: ## Lists these commands.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup:
	@$(PYTHON) tools/bootstrap.py

setup-dev:
	@$(PYTHON) tools/bootstrap.py --dev

book: setup ## Runs every chapter on this machine, builds the site, says where it is.
	$(BIN)/guidebook run --out _build/run
	$(BIN)/python tools/build_site.py --executed _build/run/notebooks --out _build/site
	@echo "Open that file in a browser, or type: make serve"

test: lint ## Checks style and types, then runs every test.
	$(BIN)/python -m pytest

lint: setup-dev ## Checks style, types and spelling.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

lab: setup ## Opens the chapters in JupyterLab, for this machine only.
	cd notebooks && PATH="$(CURDIR)/$(BIN):$$PATH" "$(CURDIR)/$(BIN)/jupyter" lab --ip 127.0.0.1 \
		$(if $(filter 0,$(shell id -u)),--allow-root)

serve: setup ## Serves the built site on http://127.0.0.1:8000, for this machine only.
	$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/site

lean: setup ## Runs the chapters and stores the outputs that are the same on every machine.
	$(BIN)/python tools/lean.py notebooks/*.ipynb
	$(BIN)/python tools/build_site.py --toc

constraints: setup-dev ## Looks up again what the pinned packages pull in; needs the network.
	$(BIN)/python tools/constraints.py

clean: ## Removes what was built; to start over with set-up too, remove .venv.
	rm -rf _build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
