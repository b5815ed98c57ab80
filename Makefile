# The project's chores; `make help` lists them. Needs Rust, a C compiler, Python 3 and make.

VENV := .venv
PYTHON := $(VENV)/bin/python -B

.DEFAULT_GOAL := help
.PHONY: help demo build test lint unit e2e test-faults oracles fmt clean tools redis faketime

help:
	@echo 'make demo          nine providers through a real Envoy, on this machine; until Ctrl-C'
	@echo 'make demo ONCE=1   the same, then ends: with status 0 if every outcome was as expected'
	@echo 'make build         target/release/hookwarden'
	@echo 'make test          formatting, lints, unit tests, end-to-end tests, oracles, and the demo once'
	@echo 'make lint          formatting and lints only'
	@echo 'make unit          the tests that need no Envoy'
	@echo 'make e2e           the tests through a real Envoy, with a real Redis; PYTEST="-k lease" chooses some'
	@echo 'make test-faults   the end-to-end tests of faults, as long as they are meant to last'
	@echo 'make oracles       the providers'\'' own packages as judges beside hookwarden; needs Node.js'
	@echo 'make fmt           formats the source'
	@echo 'make clean         removes everything that was built or installed here'

demo: build $(VENV)/demo.stamp
	$(PYTHON) deploy/demo/demo.py $(if $(filter-out 0,$(ONCE)),--once)

build: tools
	cargo build --release --locked

# One after the other, so that what fails is the last thing printed.
test:
	$(MAKE) lint
	$(MAKE) unit
	$(MAKE) e2e
	$(MAKE) oracles
	$(MAKE) demo ONCE=1

lint: tools
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

unit: tools
	cargo test --locked

e2e: build $(VENV)/e2e.stamp redis faketime
	$(PYTHON) -m pytest tests/e2e $(PYTEST)

test-faults: build $(VENV)/e2e.stamp redis faketime
	cargo test --release --locked --test claims -- --nocapture
	HOOKWARDEN_ROTATION_SECONDS=120 HOOKWARDEN_RACES=100 HOOKWARDEN_FAULT_SECONDS=10 \
		$(PYTHON) -m pytest tests/e2e -k 'rotation or store or redis or clock or replay or lifecycle' $(PYTEST)

oracles: build $(VENV)/oracles.stamp tests/oracles/node_modules/oracles.stamp
	$(PYTHON) -m pytest tests/oracles $(PYTEST)

fmt:
	cargo fmt

clean:
	cargo clean
	rm -rf $(VENV) tests/oracles/node_modules

tools:
	@for tool in cargo cc python3; do \
		command -v $$tool >/dev/null || { echo "make: '$$tool' is not installed; this needs Rust, a C compiler and Python 3" >&2; exit 1; }; \
	done

# Nothing is installed outside .venv, but for Debian's python3-venv where that is the only way and we are root.
$(VENV)/demo.stamp: deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

$(VENV)/e2e.stamp: tests/e2e/requirements.txt deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

$(VENV)/oracles.stamp: tests/oracles/requirements.txt tests/e2e/requirements.txt deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

# From Debian where it is missing and we are root; the service that comes with it is not started.
redis:
	@command -v redis-server >/dev/null || { echo 'make: redis-server is not installed; installing it from Debian'; \
		apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends redis-server; }

faketime:
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { echo 'make: libfaketime is not installed; installing it from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends faketime; }

# The packages run no script of their own when they are installed. Node.js comes from Debian where it is missing and we are root.
tests/oracles/node_modules/oracles.stamp: tests/oracles/package.json tests/oracles/package-lock.json
	@command -v npm >/dev/null || { echo 'make: npm is not installed; installing nodejs and npm from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; }
	cd tests/oracles && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
