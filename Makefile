# The two commands are `make demo` and `make test`. Each recipe calls cargo, or a script that says what it does.

.PHONY: help demo check test lint crash bench instructions fuzz

help: ## Show this list.
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

demo: ## Install what is missing, then carry a SQLite changefeed to an embedded broker (ARGS="...").
	@tests/setup build
	@test -e $${CARGO_TARGET_DIR:-target}/release/feedline || echo "demo: the first build takes some minutes, once"
	cargo run --release --locked --bin feedline -- demo $(ARGS)

check: ## Format, lints, and the tests that need no server: about a minute after a build.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib
	cargo test --locked --test it -- architecture:: tidy:: config:: format:: checkpoint_file:: stdout:: exercise:: pipeline::

test: ## Install and start every server that the tests need, and run them all; PostgreSQL's, MariaDB's, MySQL's and RabbitMQ's on each version.
	@tests/setup servers
	# They wait more than they work: four at a time on two cores.
	cargo test --locked -- --test-threads 4
	tests/versions

lint: ## Format, lints, each feature alone, licences, advisories.
	.ci/run lint

crash: ## Kill the process 100 times for each pair, 100 times while a million rows are read, and RabbitMQ 10 times for each kind of queue; then compare every row (FEEDLINE_SEED=n replays a run).
	@tests/setup servers
	FEEDLINE_KILLS=$${FEEDLINE_KILLS:-100} cargo test --locked --release --test it crash:: -- --nocapture --test-threads 1 \
		--skip crash::broker_killed
	FEEDLINE_KILLS=$${FEEDLINE_KILLS:-100} FEEDLINE_ROWS=1000000 FEEDLINE_RATE=2MiB/s \
		cargo test --locked --release --test it crash::postgres -- --nocapture --test-threads 1
	FEEDLINE_KILLS=$${FEEDLINE_KILLS:-10} cargo test --locked --release --test it crash::broker_killed -- --nocapture
	FEEDLINE_ALARM_SECONDS=$${FEEDLINE_ALARM_SECONDS:-65} cargo test --locked --release --test it amqp::faults -- --nocapture

bench: ## Measure rates, latency, CPU and memory beside a peer and the servers' own limits (BENCH_QUICK=1 shortens, BENCH_ONLY=tables chooses, BENCH_WRITE=1 keeps the figures).
	@tests/setup servers
	cargo bench --locked --bench handover --bench servers

instructions: ## Count the instructions an event takes, and compare them with the figures that are kept (BENCH_WRITE=1 keeps these).
	@tests/setup servers
	cargo bench --locked --bench instructions

fuzz: ## Fuzz one decoder with cargo-fuzz (TARGET=binlog|pgoutput|checkpoint_file|route_template, SECONDS=60).
	cargo fuzz run --sanitizer none --fuzz-dir tests/fuzz $(or $(TARGET),pgoutput) -- -max_total_time=$(or $(SECONDS),60)
