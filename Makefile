# The commands a newcomer needs. `make demo` shows the whole product; `make test` proves it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# By package: otherwise what the tests need of them (Parquet, a simulated disk) would be in what devices get, too.
PROGRAMS := --package serin-agent-program --package serin-fleet-server

.PHONY: help build demo test needs power-cut memory-groups conformance bench-footprint bench-rollback bench-inference bench-drift simulate fmt clippy deny release clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build everything once (what demo and test share)
	$(CARGO) build --workspace --all-targets --locked

demo: ## A fleet of 12 devices on this machine: canary, rollback, local rollback (DEMO_EXIT=1 ends by itself)
	$(CARGO) build --workspace --all-targets --locked
	@# Not by `cargo run --package`: other features would be unified, and dependencies built again.
	@exec "$${CARGO_TARGET_DIR:-target}/debug/demo"

needs: ## Install what the tests need from Debian, or say what is missing
	@tests/needs.sh

test: needs ## Format, lints, unit, property and end-to-end tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) build --workspace --all-targets --locked
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  echo "$(CARGO) nextest run --workspace --locked"; $(CARGO) nextest run --workspace --locked; \
	else \
	  echo "$(CARGO) test --workspace --locked"; $(CARGO) test --workspace --locked; \
	fi

# Of fleets with real update machines one in twenty seeds: they need the whole agent, and are built as it is for tests.
SEEDS ?= 1000

simulate: ## Thousands of rollouts over generated fleets, and what they promise (SEEDS=n; SEED=n tells one)
	@# Apart from the workspace: without server and device it is built optimised in a minute.
	$(CARGO) build --release --package serin-simulate --locked
	@"$${CARGO_TARGET_DIR:-target}/release/simulate" $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))
ifndef SEED
	$(CARGO) build --workspace --all-targets --locked
	@"$${CARGO_TARGET_DIR:-target}/debug/simulate-agents" --seeds $$(( ($(SEEDS) + 19) / 20 ))
endif

power-cut: ## Every update path, cut, torn or failing at every operation on its disk
	$(CARGO) build --workspace --all-targets --locked
	@exec "$${CARGO_TARGET_DIR:-target}/debug/power-cut"

memory-groups: ## Tests of worker processes on Debian's kernel in a virtual machine, with memory groups (cgroup v2)
	$(CARGO) build --workspace --all-targets --locked
	@tests/memory_groups.sh

conformance: needs ## The public test-suite for TUF clients on our trust core (SUITE=path/to/checkout)
	@test -n "$(SUITE)" || { echo "say where the suite is: make conformance SUITE=path/to/checkout" >&2; exit 2; }
	$(CARGO) build --workspace --all-targets --locked
	@tests/conformance.sh "$(SUITE)"

bench-footprint: ## What the agent takes of a device, and a device of the fleet server, in the release build
	$(CARGO) build --release --locked --bin bench-footprint
	$(CARGO) build --release --locked $(PROGRAMS)
	@exec "$${CARGO_TARGET_DIR:-target}/release/bench-footprint"

bench-rollback: ## How long a rollback takes on the device, in the release build (PEER=1 beside MLServer, ROUNDS=n)
	@if [ -n "$${PEER:-}" ]; then tests/peer.sh; fi
	$(CARGO) build --release --locked --bin bench-rollback
	$(CARGO) build --release --locked $(PROGRAMS)
	@exec "$${CARGO_TARGET_DIR:-target}/release/bench-rollback"

bench-inference: needs ## What gateway and real models cost, in the release build, beside MLServer and onnxruntime (SECONDS=n, MODELS=1 for these alone)
	@if [ -z "$${MODELS:-}" ]; then tests/peer.sh; fi
	@tests/models.sh
	$(CARGO) build --release --locked --bin bench-inference
	$(CARGO) build --release --locked $(PROGRAMS)
	@exec "$${CARGO_TARGET_DIR:-target}/release/bench-inference"

bench-drift: needs ## Devices' sketches beside datasketches and whylogs, reports taken in beside a bare subscriber, drift found in real data
	@tests/drift_peers.sh
	$(CARGO) build --release --locked --bin bench-drift
	$(CARGO) build --release --locked $(PROGRAMS)
	@exec "$${CARGO_TARGET_DIR:-target}/release/bench-drift"

deny: ## Licences, advisories and sources of all dependencies (needs cargo-deny)
	$(CARGO) deny --locked check

release: ## The small device binary and the fleet server, stripped
	$(CARGO) build --release --locked $(PROGRAMS)
	@ls -l target/release/serin-agent target/release/serin-fleet

clean: ## Remove what was built
	$(CARGO) clean
