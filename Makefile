# Each target sets up what it needs by itself: a virtual environment of its own in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Benchmarks that take hours go on where they were interrupted.
KEPT := runs/bench
KEEP := --out $(KEPT)

.PHONY: help demo test lint bench clean
help:
	@echo "make demo   set everything up and run the demo (3 minutes after installation)"
	@echo "make test   set everything up and run the tests"
	@echo "make lint   ruff, mypy, the layer check, generated files"
	@echo "make bench  the benchmarks behind bench/RESULTS.md; DATA=FOLDER with the real data"
	@echo "make clean  remove the virtual environment and caches (results in runs/ are kept)"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/llm-qfl run --config config/demo.toml

# Two processes, a file at a time: tests are single-threaded, and share what a file sets up.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m federation.reference --check

bench: $(STAMP)
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.devices
	$(BIN)/python -m bench.convergence
	$(BIN)/python -m bench.published $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.noise $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.language_models tweets $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.language_models memory
	$(BIN)/python -m bench.language_models sizes
	$(BIN)/python -m bench.features $(KEEP)/features.jsonl --store $(KEPT)/store $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.adapters $(KEEP)/adapters.jsonl $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.distillation $(KEEP)/distillation.jsonl --store $(KEPT)/store $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.agent $(KEEP)/agent.jsonl --store $(KEPT)/store $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build
