# Two commands are enough: `make demo` and `make test`. Everything they need they set up themselves; see `make help`.
# The work is done in scripts/; this file only names it.

# PG=15|16|17|18 or PG_CONFIG=/path/to/pg_config: which PostgreSQL. PROFILE=release|dev: how the extension is built.
export PG PG_CONFIG PROFILE DESTDIR DATA LABELS WAIT ARGS BENCH ALL SUMMARY_FILE TARGET

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-core lint test-db test-e2e install uninstall bench fuzz coverage clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@echo
	@echo "PG=15 (default), 16, 17 or 18 chooses PostgreSQL, PG_CONFIG=/path/to/pg_config any install."

setup: ## install what building and testing need (system packages, tools in .tooling)
	@scripts/setup.sh

build: setup ## build the extension and lay it out below target/package
	@scripts/build.sh

demo: ## see it work: a private cluster, a small factory, alerts (DATA=file.csv: your own readings)
	@scripts/demo.sh

test: ## everything below, with one sum at the end
	@scripts/test.sh

test-core: ## tests of the pure core crate; no PostgreSQL needed
	@scripts/test_core.sh

lint: setup ## rustfmt, clippy, checks of the house
	@scripts/lint.sh

test-db: setup ## tests inside the server (ARGS=part_of_a_name)
	@scripts/test_db.sh

test-e2e: setup ## tests from outside on real clusters (ARGS='-k dump')
	@scripts/test_e2e.sh

install: setup ## install into PostgreSQL, with sudo where needed (DESTDIR=/some/root for packages)
	@scripts/install.sh install

uninstall: ## remove it again
	@scripts/install.sh uninstall

bench: setup ## run the benches (BENCH=name for one)
	@scripts/bench.sh

fuzz: ## look for inputs that break the core (TARGET=name for one, SECONDS=60 for each)
	@FUZZ_SECONDS='$(SECONDS)' scripts/fuzz.sh

coverage: setup ## line coverage of the core crate
	@scripts/coverage.sh

clean: ## remove what was built (ALL=1: the tools too)
	@scripts/clean.sh
