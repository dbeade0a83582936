# One line each; what they do is in setup/ and in the `deltran` program.
.DEFAULT_GOAL := help
.PHONY: help demo test soak chaos bench bench-check lint gen

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /	/' | expand -t 8

demo: ## install what is missing, build, run the platform through one clearing day, verify it
	setup/install.sh && cargo run --release --locked --bin deltran -- demo

test: ## every test: unit, integration on a real broker and Postgres, end to end, faults
	setup/install.sh && setup/test.sh

chaos: ## faults of every kind under load, 20 minutes of them; the table goes to tests/RESULTS.md
	setup/install.sh && setup/chaos.sh

soak: ## the simulation from a seed that it prints, for ten minutes or DELTRAN_SIMULATION_MINUTES
	DELTRAN_SIMULATION_SEED=$${DELTRAN_SIMULATION_SEED:-$$(date +%s)} DELTRAN_SIMULATION_MINUTES=$${DELTRAN_SIMULATION_MINUTES:-10} cargo test --workspace --locked --test simulation whatever -- --nocapture

bench: ## throughput and latency of everything, added to bench/RESULTS.md and bench/results.json
	setup/install.sh && cargo run --release --locked --bin deltran -- bench all --keep-results bench

bench-check: ## the same again against bench/results.json: fails where less than 70 % is reached
	setup/install.sh && cargo run --release --locked --bin deltran -- bench check --runs 3

lint: ## format and lints
	cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings

gen: ## write the schemas and the other generated files anew
	cargo run --locked --bin deltran -- gen
