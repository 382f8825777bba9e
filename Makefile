# dpscale: setup demo test test-all lint bench. Everything stays inside .venv and runs/; `make setup` is instant the second time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint bench

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup
PYTHON ?= $(shell for p in python3.11 python3; do if $$p -c '' 2>/dev/null; then echo $$p; break; fi; done)
# Compiled once beside the packages that it was compiled for; jobs/cluster_session.py points the workers here.
export TORCH_EXTENSIONS_DIR ?= $(CURDIR)/$(VENV)/torch_extensions
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# DeepSpeed's builders call ninja, which lies in the virtual environment.
COMPILE = PATH="$(CURDIR)/$(BIN):$$PATH" DS_ACCELERATOR=cpu $(BIN)/python -c

# Files of tests go round the workers: their fixtures are made once.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder

help:
	@echo "make setup   .venv with pinned packages; the field's kernels, DeepSpeed's CPU optimiser and disk access compiled"
	@echo "make demo    personalise two performers, runs/demo/report.html"
	@echo "make test    the suite without its slow tests (restarts, kills, several nodes)"
	@echo "make test-all    the whole suite"
	@echo "make lint    ruff, pyright, import-linter"
	@echo "make bench   every benchmark, tables on screen and JSON in runs/benchmarks"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-data.txt $(wildcard dpscale/field/*.cpp)
	@if [ -z "$(PYTHON)" ]; then echo "dpscale needs Python 3.11: install it, or name one with make setup PYTHON=/path/to/python3.11"; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"dpscale needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-data.txt
	@if command -v "$${CXX:-g++}" >/dev/null; then \
	  echo "compiling the field's kernels, once (half a minute) ..."; \
	  log=$(VENV)/compile_field.log; \
	  if $(BIN)/python -m dpscale.field.native >$$log 2>&1; \
	  then echo "compiled into $$TORCH_EXTENSIONS_DIR"; \
	  else echo "they did not compile (see $$log): the field uses its plain torch reference, which is several times slower"; fi; \
	  echo "compiling DeepSpeed's CPU optimiser, once (one to two minutes) ..."; \
	  log=$(VENV)/compile_cpu_adam.log; \
	  if $(COMPILE) 'from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load()' >$$log 2>&1; \
	  then echo "compiled into $$TORCH_EXTENSIONS_DIR"; \
	  else echo "it did not compile (see $$log): finetuning uses torch's AdamW instead, nothing else changes"; fi; \
	  log=$(VENV)/compile_async_io.log; \
	  if ! echo '#include <libaio.h>' | "$${CXX:-g++}" -x c++ -fsyntax-only - 2>/dev/null; \
	  then echo "libaio's headers are not installed (Debian: libaio-dev): without them finetune.offload = nvme is refused, nothing else changes"; \
	  elif $(COMPILE) 'from deepspeed.ops.op_builder import AsyncIOBuilder; AsyncIOBuilder().load()' >$$log 2>&1; \
	  then echo "compiled async_io, for finetune.offload = nvme"; \
	  else echo "async_io did not compile (see $$log): finetune.offload = nvme is refused, nothing else changes"; fi; \
	else echo "no C++ compiler found: the field uses its plain torch reference, several times slower; finetuning uses torch's AdamW instead of DeepSpeed's CPU optimiser, and finetune.offload = nvme is refused"; fi
	@touch $@

demo: setup
	$(BIN)/dpscale demo

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	@for file in $(filter-out benchmarks/__init__.py,$(wildcard benchmarks/*.py)); do \
	  name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name; done
