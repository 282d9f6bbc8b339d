# The commands of this project; `make` alone lists them.
SHELL := /bin/bash
export PYTHONHASHSEED := 0
# Rust that .ci/install has just installed is not yet on the PATH of this shell.
CARGO := source "$${CARGO_HOME:-$$HOME/.cargo}/env" 2>/dev/null; cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test bench bench-compile bench-kafka kafka oracle on-call soak soak-coordinator soak-starts soak-leaders oidc soak-program mutants sim sim-mutants golden clean

help: ## Lists these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Builds in release and runs two agents on real events (first time 3 to 6 minutes)
	@echo "Step 1 of 3: what the build needs (nothing to do when it is there)"
	@.ci/install demo
	@echo "Step 2 of 3: a release build (2 to 5 minutes the first time, seconds after that)"
	@$(CARGO) build --quiet --release -p kasprc -p kaspr-exec
	@echo "Step 3 of 3: the agents (seconds)"
	@.ci/demo

test: ## Formatting, lints and every test (first time a quarter of an hour)
	@echo "Step 1 of 5: what the tests need (nothing to do when it is there)"
	@.ci/install test
	@echo "Step 2 of 5: formatting (a second)"
	@$(CARGO) fmt --all --check
	@echo "Step 3 of 5: lints, with warnings as errors (1 to 3 minutes the first time)"
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@echo "Step 4 of 5: the executor's library without its command line (half a minute the first time)"
	@$(CARGO) clippy --quiet -p kaspr-exec --lib --no-default-features -- -D warnings
	@echo "Step 5 of 5: unit, golden and end-to-end tests (a dozen minutes; two programs at a time)"
	@tests/kafka/broker fetch
	@$(CARGO) build --quiet --workspace --bins
	@source "$${CARGO_HOME:-$$HOME/.cargo}/env" 2>/dev/null; python3 tests/run.py

bench: ## Time per event beside bare Python loops, and memory, in one run (first time 3 to 6 minutes)
	@.ci/install bench
	@$(CARGO) build --quiet --release -p kaspr-benches
	@benches/run loop

bench-compile: ## How long kasprc takes for 10 to 10,000 agents (half a minute, and the build)
	@.ci/install build
	@$(CARGO) build --quiet --release -p kasprc -p kaspr-benches
	@$(TARGET)/release/compile

bench-kafka: ## On a real Kafka, beside a script by hand, Bytewax and Quix Streams, ROUNDS=5 ONLY="at least once", or ONLY=paced for latency alone (a quarter of an hour)
	@.ci/install bench
	@tests/kafka/broker fetch
	@$(CARGO) build --quiet --release -p kaspr-exec -p kaspr-benches
	@benches/run on_kafka $(or $(ROUNDS),5) "$(ONLY)"

kafka: ## Starts an Apache Kafka on localhost:9092 to try agents on; Ctrl-C ends it
	@.ci/install test
	@tests/kafka/broker fetch
	@echo "Kafka on localhost:9092, data in $(TARGET)/kafka/data; Ctrl-C ends it"
	@KAFKA_AUTO_CREATE=true tests/kafka/broker run 9092 "$(abspath $(TARGET))/kafka/data"

oracle: ## Random specs beside their plainest meaning, SEEDS=0:5000 (seven minutes a thousand)
	@.ci/install build
	@$(CARGO) build --quiet -p kaspr-exec
	@python3 tests/oracle/oracle.py --exec $(TARGET)/debug/kaspr-exec --seeds $(or $(SEEDS),0:5000)

soak: ## Agents under load through every kind of trouble on a real Kafka, MINUTES=10 CLUSTER=1 (or 3 brokers)
	@$(MAKE) --no-print-directory soak-program
	@$(TARGET)/release/soak --minutes $(or $(MINUTES),10) --brokers $(or $(CLUSTER),1) --seed $(or $(SEED),1)

soak-coordinator: ## The same on three brokers, of which the coordinator is killed KILLS=40 times (a quarter of an hour)
	@$(MAKE) --no-print-directory soak-program
	@$(TARGET)/release/soak --coordinator-kills $(or $(KILLS),40) --seed $(or $(SEED),1)

soak-starts: ## STARTS=60 and REBALANCES=30 on topics whose beginning is deleted (ten minutes)
	@$(MAKE) --no-print-directory soak-program
	@$(TARGET)/release/soak --starts $(or $(STARTS),60) --rebalances $(or $(REBALANCES),30)

on-call: ## Troubles under load: what metrics and status show of each, and how soon (three minutes)
	@.ci/install test
	@tests/kafka/broker fetch
	@$(CARGO) build --quiet --workspace --bins
	@$(CARGO) test --quiet -p kaspr-tests --test oncall -- --nocapture --test-threads=1

soak-leaders: ## Members killed, frozen and started at random, CHANGES=60: one leader at most (ten minutes)
	@.ci/install test
	@tests/kafka/broker fetch
	@$(CARGO) build --quiet --workspace --bins
	@CHANGES=$(or $(CHANGES),60) $(CARGO) test --quiet -p kaspr-tests --test membership one_leader -- --nocapture

oidc: ## The tests of tokens in a build with --features oidc: librdkafka with libcurl, in a folder of its own (a quarter of an hour)
	@.ci/install test
	@CARGO_TARGET_DIR=$(abspath $(TARGET))/oidc tests/kafka/broker fetch
	@export CARGO_TARGET_DIR=$(abspath $(TARGET))/oidc; $(CARGO) build --quiet -p kaspr-exec --features oidc
	@export CARGO_TARGET_DIR=$(abspath $(TARGET))/oidc; $(CARGO) test --quiet -p kaspr-tests --test tokens -- --nocapture

soak-program:
	@.ci/install test
	@tests/kafka/broker fetch
	@$(CARGO) build --quiet --release -p kaspr-exec -p kaspr-tests --bins

mutants: ## Breaks one rule of the executor after the other: a test must see each (an hour or more)
	@.ci/install build
	@source "$${CARGO_HOME:-$$HOME/.cargo}/env" 2>/dev/null; python3 tests/oracle/mutants.py

sim: ## Real workers over a simulated broker, SEEDS=0..2000; SEED=17 replays one and shows its steps
	@.ci/install build
	@$(CARGO) test --quiet -p kaspr-tests --test simulator -- --nocapture $(if $(PYTHON_SEED),real_python,every_seed)

sim-mutants: ## Breaks one rule of delivery after the other: a seed or a test must see each (20 minutes)
	@.ci/install build
	@source "$${CARGO_HOME:-$$HOME/.cargo}/env" 2>/dev/null; python3 tests/oracle/sim_mutants.py

.PHONY: quick
quick: ## What to run while you work: formatting, lints, unit and golden tests, some seeds (two minutes once built)
	@.ci/install build
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@python3 tests/oracle/mutants.py --check && python3 tests/oracle/sim_mutants.py --check
	@$(CARGO) build --quiet --workspace --bins
	@$(CARGO) test --quiet -p kaspr-ir -p kasprc -p kaspr-exec
	@export TEST_SEEDS=0:200; $(CARGO) test --quiet -p kaspr-tests --test house --test documents --test errors --test reported --test quiet --test rehearsed --test golden --test oracle
	@export SEEDS=0..100; $(CARGO) test --quiet -p kaspr-tests --test simulator -- every_seed

golden: ## Writes the golden files of specs/ anew; read the diff before you commit it
	@export UPDATE_EXPECT=1; $(CARGO) test --quiet -p kaspr-tests --test golden
	@for spec in earthquakes shop; do dot -Tsvg specs/$$spec/plan.dot -o specs/$$spec/plan.svg; done

clean: ## Removes what was built and what the demo wrote
	rm -rf $(TARGET) demo-out
