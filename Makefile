# Everything is run from .venv, which is made again only when a lock file or pyproject.toml has changed.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.made-for-running
DEVELOPMENT := $(VENV)/.made-for-development
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
EDITABLE := install --no-build-isolation --no-deps --editable .
# compiles what has changed since, the loops for a minute or two: else each process that starts would do it, and where
# Python is told to write no bytecode, all of it each time
WARM_UP := $(BIN)/python -m compileall -q bench cli flows native operators schemas sinks sources \
	&& $(BIN)/python -c "import sources.kafka_columns, sinks.kafka; from operators.lane import warm_up; warm_up()"
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --fork-strategy fewest \
	--no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)
COMPILE := $(LOCK) pyproject.toml --extra build

# what pytest is given: make test TESTS="tests/operators -k counts"
TESTS ?= tests
PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest
# what the demo is given: make demo DEMO="--seconds 10"
DEMO ?=
# the fault campaign: how many seeds, from which one on, one fault alone, how many times as long this machine takes, a file
# for its table, and one with the result of each seed, from which it goes on when it was interrupted
SEEDS ?= 10
FIRST ?= 1
ONLY ?=
SLOW ?=
REPORT ?=
RESULTS ?=

.PHONY: help demo test peers properties faults check lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## the main flow with a live table; needs nothing beside Python (DEMO="--seconds 10")
	@$(WARM_UP)
	$(BIN)/onhand demo $(DEMO)

test: $(DEVELOPMENT) ## all tests, with a real Kafka and a real Redis; a skipped test fails (TESTS="tests/bench -k redis")
	@scripts/need java:default-jre-headless
	@[ -d .cache/kafka ] || scripts/need mvn:maven
	@$(BIN)/python -m bench.servers kafka-jars >/dev/null
	@$(WARM_UP)
	@beside=0; alone=0; \
	$(PYTEST) --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not alone" $(TESTS) || beside=$$?; \
	$(PYTEST) -m alone $(TESTS) || alone=$$?; \
	case "$$beside $$alone" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac # 5: none of TESTS, which is fine for one of both

peers: $(DEVELOPMENT) ## every engine of `onhand bench peers` once, in environments of their own; the first time it makes them
	@scripts/need java:default-jre-headless
	@[ -d .cache/kafka ] || scripts/need mvn:maven
	@$(BIN)/python -m bench.servers kafka-jars >/dev/null
	$(BIN)/python -m pytest tests/bench/peers_in_their_environments.py

properties: $(DEVELOPMENT) ## ten thousand random runs of the lanes against the oracle; takes half an hour
	$(BIN)/python -m pytest --hypothesis-profile=long tests/operators/test_lane_equals_oracle.py \
		tests/operators/test_facts_equal_the_oracle.py tests/operators/test_rules_equal_the_oracle.py \
		tests/operators/test_promises_hold.py

faults: $(DEVELOPMENT) ## kills, freezes and cuts off real processes under load (SEEDS=200 FIRST=1 ONLY=drain REPORT=table.md RESULTS=seeds.jsonl)
	@scripts/need java:default-jre-headless
	@[ -d .cache/kafka ] || scripts/need mvn:maven
	@$(BIN)/python -m bench.servers kafka-jars >/dev/null
	@$(WARM_UP)
	$(BIN)/python -m tests.faults.campaign --seeds $(SEEDS) --first $(FIRST) $(if $(ONLY),--only $(ONLY)) $(if $(SLOW),--slow $(SLOW)) \
		$(if $(REPORT),--report $(REPORT)) $(if $(RESULTS),--results $(RESULTS))

check: $(DEVELOPMENT) ## ruff, its formatter, mypy and the import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(DEVELOPMENT) ## all lock files (UPGRADE=--upgrade for the newest versions)
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --constraints requirements.lock --output-file requirements-dev.lock
	$(LOCK) bench/peers/loop.in --constraints requirements.lock --output-file bench/peers/loop.txt
	$(LOCK) bench/peers/bytewax.in --constraints requirements.lock --output-file bench/peers/bytewax.txt
	$(LOCK) bench/peers/quix.in --output-file bench/peers/quix.txt

clean: ## remove what was made: the environment, fetched jars, caches
	rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python="$$(scripts/find-python)" && echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) $(EDITABLE)
	@touch $@

# it holds the runtime's lock too, so that one environment serves both
$(DEVELOPMENT): requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	$(PIP) $(EDITABLE)
	@touch $(RUNTIME) $@
