# Each target sets up what it needs by itself: a virtual environment of its own in .venv.
PYTHON ?= python3
# File of versions for pip; .ci/run gives one.
CONSTRAINTS ?=
PACKAGES := client_app core data llm llm_qfl quantum reporting server_app strategies
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Benchmarks that take hours go on where they were interrupted.
KEEP := --out runs/bench
STUDIES := published features distillation agents

# make compose-demo BASE_IMAGE=... PIP_CONFIG=pip.conf: the latter is there during the build alone.
DOCKER ?= docker
COMPOSE ?= $(shell $(DOCKER) compose version >/dev/null 2>&1 && echo "$(DOCKER) compose" || echo docker-compose)
BASE_IMAGE ?= python:3.11-slim
PIP_CONFIG ?=
BUILD_OPTIONS ?=
COMMA := ,

.PHONY: help demo test coverage test-deploy test-faults lint lock bench compose-demo clean
help:
	@echo "make demo   set everything up and run the demo (3 minutes after installation)"
	@echo "make test   set everything up and run the tests"
	@echo "make coverage  the tests, and which lines of each folder they run"
	@echo "make test-deploy  a real deployment of two nodes over TLS, and a run on it"
	@echo "make test-faults  kill parts of real runs, fill their disk, and go on (20 minutes)"
	@echo "make lint   ruff, mypy, the layer check, generated files"
	@echo "make lock   write the versions that are installed here to constraints-ci.txt"
	@echo "make bench  the benchmarks behind bench/RESULTS.md; DATA=FOLDER with the real data"
	@echo "make compose-demo  a federation in containers, over TLS, to its report (needs Docker)"
	@echo "make clean  remove the virtual environment and caches (results in runs/ are kept)"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing about 3 GB of packages into $(VENV), once; this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e ".[dev]" $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/llm-qfl run --config config/demo.toml

# Two processes, a file at a time: tests are single-threaded, and share what a file sets up.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=30

# Half as long again as make test, so not part of CI; no threshold.
coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(foreach f,$(PACKAGES),--cov=$(f)) --cov-report=term

# Minutes on two cores, so not part of CI.
test-deploy: $(STAMP)
	LLM_QFL_REAL=1 $(BIN)/python -m pytest tests/llm_qfl/deploy/test_real.py \
		tests/llm_qfl/test_own_files.py tests/llm_qfl/test_new.py tests/llm_qfl/test_python_runs.py \
		tests/llm_qfl/test_real_runs.py

test-faults: $(STAMP)
	LLM_QFL_REAL=1 $(BIN)/python -m pytest tests/faults

# Without the local part of a version, for instance +cpu: it depends on where a wheel is from.
lock: $(STAMP)
	@{ echo "# Versions that CI installs (.ci/run); written by make lock."; \
	$(BIN)/python -m pip list --format=freeze --exclude-editable | tr 'A-Z_' 'a-z-' | sort \
	| sed -E 's/\+[a-z0-9.]+$$//' | grep -vE '^(llm-qfl|pip|setuptools|wheel)=='; } > constraints-ci.txt

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m core.settings.reference --check

bench: $(STAMP)
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.devices
	$(BIN)/python -m bench.readout $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.theory.convergence
	$(BIN)/python -m bench.noise $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.language_models tweets $(if $(DATA),--data $(DATA))
	$(BIN)/python -m bench.language_models memory
	$(BIN)/python -m bench.language_models sizes
	$(BIN)/python -m bench.adapters $(KEEP)/adapters.jsonl $(if $(DATA),--data $(DATA))
	@set -ex; for study in $(STUDIES); do \
		$(BIN)/llm-qfl study bench/studies/$$study-dna.toml $(if $(DATA),--set data.path=$(DATA)/human_vs_worm); \
		$(BIN)/llm-qfl study bench/studies/$$study-tweets.toml $(if $(DATA),--set data.path=$(DATA)/tweet_eval); \
	done

compose-demo:
	DOCKER_BUILDKIT=1 $(DOCKER) build --file docker/Dockerfile --tag llm-qfl:local \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) \
		--build-arg COMMIT=$$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown) \
		$(if $(PIP_CONFIG),--secret id=pip$(COMMA)src=$(PIP_CONFIG)) $(BUILD_OPTIONS) .
	@trap '$(COMPOSE) down' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; set -e; \
	$(COMPOSE) up --detach --no-build node-0 node-1 node-2; \
	$(COMPOSE) run --rm -T run; \
	mkdir -p runs/compose; \
	$(COMPOSE) run --rm -T --no-deps --entrypoint tar run -C /runs -cf - . | tar --no-same-owner -C runs/compose -xf -; \
	echo "report: runs/compose/latest/report.html"

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build
