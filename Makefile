# `make` lists the targets. What each one does is in scripts/tasks.py, which also runs where there is no make:
# `python3 scripts/tasks.py test`. Needed: Rust (see rust-version in Cargo.toml) and Python 3.10 or later.

.DEFAULT_GOAL := help
.PHONY: help demo test lint format test-rust test-schedules test-python wheel stubs readme fuzz sanitize bench accuracy \
	concurrency clean

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(firstword $(foreach name,python3 python python3.14 python3.13 python3.12 python3.11 python3.10,\
	$(if $(shell $(name) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo yes),$(name))))
TASK = @$(if $(PYTHON),,$(error no Python 3.10 or later was found; install one, or name one: make PYTHON=/path/to/python3 $@))\
	"$(PYTHON)" scripts/tasks.py

help: ## List the targets
	@echo "phicandle: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done

demo: ## Build phicandle and let its small built-in model write a haiku about ice hockey
	$(TASK) demo

test: ## Everything that CI runs: lint, Rust tests, the wheel, Python tests, stubs, README
	$(TASK) test

lint: ## rustfmt, clippy, rustdoc, ruff and mypy, without changing a file; licences
	$(TASK) lint

format: ## Format Rust and Python in place
	$(TASK) format

test-rust: ## Rust tests only
	$(TASK) test-rust

test-schedules: ## Where threads meet, in every order of their steps
	$(TASK) test-schedules

test-python: ## Build and install the wheel, then pytest against it (ARGS="-k name" for some)
	$(TASK) test-python $(ARGS)

wheel: ## Build the release wheel and the sdist into dist/
	$(TASK) wheel

stubs: ## Check the stubs against the installed wheel
	$(TASK) stubs

readme: ## Run the README's Python snippets and check its commands
	$(TASK) readme

fuzz: ## Fuzz each target for a short while (SECONDS_EACH=60)
	$(TASK) fuzz $(or $(SECONDS_EACH),60)

sanitize: ## The kernels' tests under AddressSanitizer, valgrind and an emulated Arm (TOOL=valgrind for one)
	$(TASK) sanitize $(TOOL)

bench: ## Compare with other engines (ARGS="--quick"); or one criterion benchmark (NAME=sampling, NAME=list)
	$(TASK) bench $(if $(NAME),--name $(NAME)) $(ARGS)

accuracy: ## Compare logits with float64 and other engines; writes docs/accuracy.md
	$(TASK) accuracy $(ARGS)

concurrency: ## Measure many at once (ARGS="--quick"); writes docs/concurrency.md
	$(TASK) concurrency $(ARGS)

clean: ## Remove what the targets above have made
	$(TASK) clean
