# What this project can do, from a clean clone. `make` lists it.
#
# Continuous integration (.ci/run) starts from a clean machine with Python >= 3.11 and runs `make test`; it relies on
# `make install` installing EVERYTHING that lint, types, tests, demo and benchmarks need, the servers included.
# Works as root and as an ordinary user. Nothing is installed outside .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Another interpreter: make install PYTHON=/path/to/python3.12
PYTHON ?=
# More for pytest: make test ARGS="-k canary -x"
ARGS ?=
NAME ?=
# Test processes: two more than cores, since tests of whole systems mostly wait for them.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 2 )))

# Tests start some hundred Python processes; each would compile this project anew where the environment forbids to keep it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## List these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## Make .venv with everything, from the hashed lock (again only when lock or pyproject.toml changed)
	@:

# The interpreter must run (a version manager's shim may exist without one), be new enough, and be able to make a venv.
$(STAMP): requirements/dev.lock pyproject.toml
	@python=""; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make install: no Python 3.11 or newer with the venv module$(if $(PYTHON), at $(PYTHON),)." >&2; \
	  echo "Install one (Debian: apt install python3 python3-venv), or name it: make install PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	if [ -x $(BIN)/python ] && $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  echo "updating $(VENV) ($$($(BIN)/python --version))"; \
	else \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing $$(grep -c '^[a-z].*==' requirements/dev.lock) pinned packages (a minute or two the first time)"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@echo "installing hotswap itself"
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

.PHONY: demo
demo: install ## Show it: a canary under traffic, a worker killed, a bad version taken back (90 s)
	@$(BIN)/hotswap demo

.PHONY: up
up: install ## Run everything on this machine until Ctrl-C (data in .hotswap)
	@$(BIN)/hotswap up

.PHONY: test
test: install lint imports ## Lint, import rules, types, then the tests, in parallel
# Beside the type check, what pytest makes of the tests' asserts is written once: else each test process would do it anew, all
# at the same time (5 s of CPU each). What is wrong with a test is told by the run itself.
	@$(BIN)/python -m pytest --collect-only -q &>/dev/null & $(MAKE) types && wait
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not long" $(ARGS)

.PHONY: test-long
test-long: install ## The few tests that make test leaves out, each with a shorter sibling there
	@$(BIN)/python -m pytest -m long $(ARGS)

.PHONY: lint
lint: install ## Style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: install ## Strict type checking
	@$(BIN)/mypy

.PHONY: imports
imports: install ## Who may import whom
	@$(BIN)/lint-imports

.PHONY: unit
unit: install ## Tests that need no server (seconds)
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not stack and not e2e" tests/unit tests/architecture $(ARGS)

.PHONY: e2e
e2e: install ## The whole system with real processes, killed for real
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

# No package ships a Chromium that runs offline, so it is the system's. Without one, make test leaves its tests out and says so.
.PHONY: browser
browser: ## Install Chromium for the browser tests (Debian or Ubuntu, as root); nothing to do where there is one
	@if command -v chromium chromium-browser google-chrome >/dev/null || [ -n "$${HOTSWAP_TEST_CHROMIUM:-}" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "make browser: needs root and apt-get; install Chromium yourself, or name one: HOTSWAP_TEST_CHROMIUM=/path/to/chromium" >&2; \
	  exit 1; \
	fi; \
	echo "installing Chromium (apt-get)"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null

# $(call from-debian,package,program,target): the one program of Debian's package, into .venv; no service, no root needed.
define from-debian
if [ ! -x $(BIN)/$(notdir $(2)) ] && ! command -v $(notdir $(2)) >/dev/null; then \
  if ! command -v apt-get >/dev/null; then \
    echo "make $(3): needs apt-get; install $(notdir $(2)) yourself, so that it is on PATH" >&2; exit 1; \
  fi; \
  scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; cd "$$scratch"; \
  apt-get download -qq $(1) >/dev/null 2>&1 || { apt-get update -qq && apt-get download -qq $(1) >/dev/null 2>&1; }; \
  dpkg-deb --extract $(1)_*.deb unpacked && install -m 0755 unpacked/$(2) $(CURDIR)/$(BIN)/$(notdir $(2)); \
fi
endef

.PHONY: promtool
promtool: install ## Install promtool, which tests the alert rules (Debian or Ubuntu); nothing to do where there is one
	@$(call from-debian,prometheus,usr/bin/promtool,promtool)

.PHONY: rivals
rivals: install ## Install gunicorn and nginx (Debian or Ubuntu), which make bench NAME=invoke then measures too
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements/rivals.lock
	@$(call from-debian,nginx,usr/sbin/nginx,rivals)
	@PATH="$$PATH:/usr/sbin:$(BIN)"; nginx -v; $(BIN)/gunicorn --version

.PHONY: test-chaos
test-chaos: install ## The fault injector's long mode: 200 deployments, parts killed at random (30 minutes at most)
	@timeout --signal=INT 1800 $(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: install ## 24 hours in ten minutes: deployments, kills, traffic; nothing may grow (docs/benchmarks.md)
	@timeout --signal=INT 1200 $(BIN)/python -m tests.chaos.soak $(ARGS)

.PHONY: fuzz
fuzz: install ## Schemathesis against the facade, long (5 minutes): make fuzz ARGS="--examples 200 --number 7"
	@$(BIN)/python -m tests.http.fuzzing $(ARGS)

.PHONY: bench
bench: install ## Run a benchmark: make bench NAME=deploy (docs/benchmarks.md)
	@if [ ! -f "benchmarks/$(NAME).py" ]; then \
	  echo "make bench NAME=...; there are:" $$(cd benchmarks && grep -l __main__ *.py 2>/dev/null | sed 's/\.py$$//') >&2; exit 2; \
	fi
	@$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

.PHONY: reference
reference: install ## Write docs/reference anew from the routes, the commands and the settings
	@$(BIN)/python -m tests.docs.reference

.PHONY: runbooks
runbooks: install ## Follow every page of docs/runbooks to its end on a live system whose parts break (a few minutes)
	@$(BIN)/python -m pytest -n0 tests/runbooks/test_*.py tests/runbooks/slow_*.py $(ARGS)

.PHONY: compose-env
compose-env: ## Passwords for docker-compose.temporal.yml: writes .env, once (docs/deploy.md)
	@$(if $(PYTHON),$(PYTHON),python3) deploy/compose/make_env.py .env

# Needs an index with all the wheels; names none, so pip's and uv's own configuration holds.
.PHONY: lock
lock: ## Pin every dependency anew, with hashes, for Python 3.11 and later
	@uv="$$(command -v uv || true)"; scratch=""; \
	if [ -z "$$uv" ]; then \
	  scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; \
	  $(if $(PYTHON),$(PYTHON),python3) -m venv "$$scratch"; \
	  "$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check uv; \
	  uv="$$scratch/bin/uv"; \
	fi; \
	"$$uv" pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet -o requirements/dev.lock; \
	"$$uv" pip compile pyproject.toml --constraints requirements/dev.lock --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet -o requirements/production.lock; \
	echo 'setuptools>=80' | "$$uv" pip compile - --constraints requirements/dev.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements/build.lock; \
	printf 'gunicorn>=27\nuvicorn-worker>=0.4\n' | "$$uv" pip compile - --constraints requirements/dev.lock --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements/rivals.lock
	@for file in dev production build rivals; do \
	  echo "requirements/$$file.lock: $$(grep -c '^[a-z].*==' requirements/$$file.lock) packages"; \
	done

.PHONY: clean
clean: ## Remove what make made: .venv, caches, builds, the local stack's data
	@pid="$$(sed -n 's/.*"supervisorPid": *\([0-9]*\).*/\1/p' .hotswap/stack.json 2>/dev/null || true)"; \
	if [ -n "$$pid" ] && [ -e "/proc/$$pid" ]; then \
	  echo "the stack is running (.hotswap, process $$pid); stop it first" >&2; exit 1; \
	fi
	@rm -rf $(VENV) .hotswap build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
