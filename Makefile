# Each target is one line that calls what does it.

.PHONY: demo test check down

demo: ## runs the main job on real servers, which stay up
	@dev/demo

test: ## runs all tests on servers of their own
	@dev/build test --no-run && dev/servers run test -- cargo test --quiet

check: ## formatting, lints and documentation
	@dev/check

down: ## stops the servers of the demo
	@dev/servers down demo
