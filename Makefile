# Everything here sets itself up on a machine that has Python 3.11 (or newer) and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

CORES := $(shell getconf _NPROCESSORS_ONLN)
# Many tests wait in real time, so that two workers fit on a core.
WORKERS = $(shell expr 2 '*' $(CORES))
PYTEST = $(BIN)/python -m pytest -ra -n $(WORKERS) --dist loadgroup

# With bytecode on disk a test's process starts in half the time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-matrix check audit format stack demo-stack bench bench-stack soak picture clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

$(BIN)/python:
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.example: pyproject.toml | $(BIN)/python
	@echo "Installing callbot_latency and what the example callbot needs ..."
	@$(PIP) -e '.[example]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.example
	@echo "Installing what the tests need ..."
	@$(PIP) -e '.[example,test,check]'
	@touch $@

demo: $(VENV)/.example ## one phone call, answered and measured; needs no server
	@$(BIN)/python -m examples.callbot.demo $(ARGS)

test: $(VENV)/.test ## every test; says by name which servers are missing and what was therefore not tested
	@$(BIN)/python -m devservers.stack --build-only $(if $(CALLBOT_REQUIRE_SERVERS),,--lenient)
	@$(PYTEST) $(ARGS)

test-fast: WORKERS = $(CORES)
test-fast: $(VENV)/.test ## the tests that need no server, start no process and wait for nothing
	@$(PYTEST) -m "not real_time and not servers" $(ARGS)

test-matrix: $(VENV)/.test ## the unit tests on each Python that is found here, with OpenTelemetry's oldest and newest
	@$(BIN)/nox $(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(OTEL),--session $(OTEL)) $(if $(ARGS),-- $(ARGS))

check: $(VENV)/.test ## lint, formatting, layers of imports, types, and what bandit finds
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet -c pyproject.toml -r callbot_latency devservers examples
	@mkdir -p .mypy_cache
	@$(BIN)/lint-imports > .mypy_cache/imports || { cat .mypy_cache/imports; exit 1; }
	@grep ^Contracts: .mypy_cache/imports
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/basedpyright --verifytypes callbot_latency --ignoreexternal > .mypy_cache/public \
		|| { cat .mypy_cache/public; exit 1; }
	@grep completeness .mypy_cache/public

audit: $(VENV)/.test ## known vulnerabilities of what is installed; fails where their data are not to be had
	@$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/installed.txt
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(VENV)/installed.txt

format: $(VENV)/.test ## put the code in form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

stack: $(VENV)/.test ## Collector, Jaeger, Prometheus and InfluxDB on this machine, without Docker, until Ctrl-C
	@$(BIN)/python -m devservers.stack $(ARGS)

demo-stack: $(VENV)/.test ## the call of the demo, to be seen in those servers, until Ctrl-C
	@$(BIN)/python -m examples.callbot.demo_stack $(ARGS)

# An environment of its own: what is compared with patches things, and brings much that no test is to see.
# autometrics asks for an exporter of years ago; what it needs of that, ours has.
$(BENCH_VENV)/.bench: pyproject.toml
	@echo "Installing what the benchmarks compare with ..."
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -e '.[bench]'
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps autometrics==1.0.0
	@touch $@

bench: $(BENCH_VENV)/.bench ## what measuring costs, as ratios within one run
	@$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

bench-stack: $(VENV)/.test ## 2,000 measurements a second through the real Collector, and the highest rate
	@$(BIN)/python -m benchmarks.figures.sustained $(ARGS)

soak: $(VENV)/.test ## 10 minutes in which everything goes wrong at random, and a verdict on what became of each measurement
	@$(BIN)/python -m tests.chaos $(ARGS)

picture: $(VENV)/.example ## docs/waterfall.svg, from a call made now
	@$(BIN)/python -m examples.callbot.demo --svg docs/waterfall.svg

clean: ## remove what these commands made here
	@rm -rf $(VENV) $(BENCH_VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis outputs
