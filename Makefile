# One-word verbs. Every one sets up what it needs: a fresh clone needs nothing but Python 3.11.
.PHONY: install check test faults faults-mutations serve demo bench docs clean
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread: two on shared cores can be ten times slower.
export OMP_NUM_THREADS ?= 1
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

help:
	@echo "make demo     set up and make four pictures from a photograph and a prompt"
	@echo "make serve    run database, API and worker on http://127.0.0.1:9000"
	@echo "make test     run the tests"
	@echo "make faults   kill, stop and cut off everything, for an hour, and print what came of it"
	@echo "make check    lint, types, layers"
	@echo "make bench    measure latency and overhead, beside peers"
	@echo "make docs     write the OpenAPI document to docs/openapi.json"
	@echo "make install  set up $(VENV) only"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Imageloom needs Python 3.11 or later; set PYTHON=python3.12, say"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing packages into $(VENV) (about 1.5 GB the first time) ..."
	@# torch first and by exact version, so that nothing later brings another build of it.
	@$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# Its metadata asks for torchvision, which only two architectures that we never load import.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$$(grep '^spandrel==' constraints.txt)"
	@touch $@

install: $(STAMP)

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/unasync.py --check
	$(BIN)/python tools/openapi.py --check

# What tests of pages and of metrics run, by name from the package manager. promtool is taken out of
# its package: installed, that would start a Prometheus on this machine.
BROWSER := $(VENV)/.browser
$(BROWSER): | $(STAMP)
	@for name in chromium chromium-browser google-chrome; do command -v $$name; done | grep -q . || \
	  { echo "Installing chromium ..."; \
	    $(AS_ROOT) apt-get update -qq && \
	    $(AS_ROOT) apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  { echo "make test needs Chromium: install it and try again"; exit 1; }
	@touch $@
PROMTOOL := $(BIN)/promtool
$(PROMTOOL): | $(STAMP)
	@command -v promtool >/dev/null && ln -sf "$$(command -v promtool)" $@ || \
	  { echo "Fetching promtool ..."; cd $(VENV) && \
	    { apt-get download -qq prometheus 2>/dev/null || \
	      { $(AS_ROOT) apt-get update -qq && apt-get download -qq prometheus; }; } && \
	    dpkg-deb -x prometheus_*.deb prometheus && rm prometheus_*.deb && \
	    ln -sf ../prometheus/usr/bin/promtool bin/promtool; } || \
	  { echo "make test needs promtool: install Prometheus and try again"; exit 1; }

# Two processes, each with a database and a server of its own; a file stays in one of them. On two
# cores three take longer.
test: $(STAMP) $(BROWSER) $(PROMTOOL)
	$(BIN)/pytest -n 2 --dist loadfile

# The long form of tests/faults: every scenario at its full size. SEED=7 repeats a run.
faults: $(STAMP)
	cd tests && $(abspath $(BIN))/python -m faults $(if $(SEED),--seed $(SEED))

# Shows that the laboratory can turn red: four guards are taken out of copies of the source.
faults-mutations: $(STAMP)
	cd tests && $(abspath $(BIN))/python -m faults.mutations

serve: $(STAMP)
	$(BIN)/imageloom serve

demo: $(STAMP)
	$(BIN)/imageloom demo --out outputs

bench: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@command -v redis-server >/dev/null || \
	  { echo "Installing redis-server ..."; \
	    $(AS_ROOT) apt-get update -qq && \
	    $(AS_ROOT) apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
	  echo "Without redis-server, bench/noop.py will not run"
	$(BIN)/python bench/latency.py
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/trace.py
	$(BIN)/python bench/workflow.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/beside.py
	$(BIN)/python bench/webhooks.py
	-$(BIN)/python bench/noop.py
	$(BIN)/python bench/dashboard.py
	$(BIN)/python bench/events.py
	$(BIN)/python bench/gpu.py

docs: $(STAMP)
	$(BIN)/python tools/openapi.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
