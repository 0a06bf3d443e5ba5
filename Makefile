# make help lists the targets. Everything runs in .venv, which is made on first use and again when the lock changes.
.DEFAULT_GOAL := help
.PHONY: help install train test test-all lint format report pages bench gpu same reliability audit clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
REF ?= main
# Each process computes in one thread: two that share the cores are faster than one that uses both.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=worksteal
BENCHMARKS := startup neuron train_step inference time_to_accuracy scaling data

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with everything pinned and hashed (other targets do this by themselves)

$(STAMP): requirements.lock requirements-uv.lock pyproject.toml
	@echo "Installing into $(VENV) (once; PyTorch is large) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock --build-constraints requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

train: $(STAMP) ## train QB-LIF on real images, absorb, prove the integer network (ARGS="neuron.s_max=4 ...")
	@$(BIN)/python train.py experiment=digits_energy $(ARGS)

test: $(STAMP) ## run the tests, except the long ones, in a process per core (four at most)
	$(PYTEST) $(ARGS)

test-all: $(STAMP) ## run all tests
	$(PYTEST) -m "slow or not slow" $(ARGS)

lint: $(STAMP) ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

report: $(STAMP) ## write outputs/report.html over all runs (ARGS=folder=RUN_DIR: one run's page again)
	@$(BIN)/python scripts/make_report.py $(ARGS)

pages: $(STAMP) ## write the numbers and figures of docs/ and README.md from docs/results (ARGS=store=NAME: keep a sweep first)
	@$(BIN)/python scripts/make_tables.py docs=true $(ARGS)

bench: $(STAMP) ## measure beside peers (25 minutes to over an hour on two cores), write docs/benchmarks.md, print the goals
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done
	@$(BIN)/python -m benchmarks.make_page

gpu: $(STAMP) ## on a CUDA card: tests, benchmarks and trainings in 25 minutes, docs/checks/gpu_CARD.json (docs/gpu.md)
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

same: $(STAMP) ## show that the work tree computes what another commit does, bit for bit (REF=main)
	@$(BIN)/python scripts/same.py ref=$(REF)

reliability: $(STAMP) ## show what is promised when something goes wrong (an hour or more), write docs/reliability.md
	@$(BIN)/python -m tests.reliability $(ARGS)

audit: $(STAMP) ## compare the locked packages with the lists of known weaknesses (3: nobody answered)
	@$(BIN)/python scripts/audit.py $(ARGS)

clean: ## remove caches and the environment, keep outputs and data
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
