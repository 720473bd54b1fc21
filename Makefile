# Each target is one line that calls what does it.

.PHONY: demo test torture bench check down

demo: ## runs the main job on real servers, which stay up
	@dev/demo

test: ## runs all tests on servers of their own
	@dev/build test --no-run && dev/servers run test -- cargo test --quiet

torture: ## random transactions under random faults, for TORTURE_SECONDS; TORTURE_SEED repeats a run
	@dev/build test --no-run --test torture && TORTURE_SECONDS=$${TORTURE_SECONDS:-300} dev/servers run torture -- cargo test --quiet --test torture

bench: ## figures of BENCH_FILMS films (200000) as ratios within the run; BENCH_LARGE=1000000 adds that size
	@dev/build bench --no-run --bench bench && ETL_DEV_FSYNC=on dev/servers run bench -- cargo bench --quiet --bench bench

check: ## formatting, lints and documentation
	@dev/check

down: ## stops the servers of the demo
	@dev/servers down demo
