# Everything from a fresh clone: `make demo` trains and talks, `make test` checks.
PYTHON ?= python3
VENV ?= .venv
# A shim of pyenv's runs the version that PYENV_VERSION names, and no other; what it runs says where it lies.
NEWEST_PYTHON ?= $(or $(firstword $(foreach v,14 13 12,$(shell PYENV_VERSION=3.$(v) python3.$(v) -c 'import sys; print(sys.executable)' 2>/dev/null))),python3)
NEWEST_VENV ?= .venv-newest
BIN := $(VENV)/bin
DEMO_DIR ?= demo
SHARED := $(if $(TULU_SHARED),$(abspath $(TULU_SHARED)))
SNAKEMAKE_VENV ?= .venv-snakemake

.PHONY: help demo study test test-newest lint format site bench constraints snakemake clean

help:  ## list what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.core  ## train a small LLaMA on instructions, score it, export it
	$(BIN)/tulu demo --dir $(DEMO_DIR)

study: $(VENV)/.study $(SNAKEMAKE_VENV)/.made  ## the paper's study at tiny size, and its report (TULU_SHARED names the samples)
	TULU_SHARED=$(SHARED) $(BIN)/tulu study run study/tiny --jobs 2 --snakemake $(SNAKEMAKE_VENV)/bin/snakemake

snakemake: $(SNAKEMAKE_VENV)/.made  ## Snakemake, in an environment of its own

test: lint  ## lint, types and all tests (set TULU_SHARED for those on real data)
	TULU_SHARED=$(SHARED) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=40

test-newest:  ## the tests (but for those against torch) on the newest Python and libraries found here
	$(NEWEST_PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_VENV)/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test-base,tpu]'
	TULU_SHARED=$(SHARED) $(NEWEST_VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.test  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

site: $(VENV)/.test  ## the documentation as pages, in build/website/site
	$(BIN)/python -m website.build

bench: $(VENV)/.test  ## our training step beside transformers + torch (nothing else may run)
	$(BIN)/python benchmarks/vs_torch.py

constraints: $(VENV)/.test  ## pin what is installed
	(head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/^torch @.*/torch==2.13.0/; s/ @ .*//') > constraints.new
	mv constraints.new constraints.txt

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.core

$(VENV)/.study: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[annotate,ifeval]'
	touch $@ $(VENV)/.core

$(SNAKEMAKE_VENV)/.made: constraints-snakemake.txt
	$(PYTHON) -m venv $(SNAKEMAKE_VENV)
	$(SNAKEMAKE_VENV)/bin/pip install --quiet --requirement constraints-snakemake.txt
	touch $@

clean:  ## remove the virtual environments and the demo
	rm -rf $(VENV) $(SNAKEMAKE_VENV) $(DEMO_DIR)
