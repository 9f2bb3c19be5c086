# envelope_pg: thin targets over scripts/. PG_CONFIG=... chooses another PostgreSQL.

.DEFAULT_GOAL := help
# Every target that help lists.
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*/\1/p' Makefile)

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28
	@echo; echo "PG_CONFIG=/path/to/pg_config chooses the PostgreSQL (default: the newest one with server headers)."

demo: ## see it work, with a KMS emulator: real text encrypted, decrypted and compared on a throw-away server
	@scripts/demo.sh

psql: setup install ## open psql on a throw-away server with the extension and a local key
	@scripts/psql.sh local

psql-kms: setup install ## the same with a KMS emulator beside it, and the aliases, roles and tables of README
	@scripts/setup.sh kms
	@scripts/psql.sh kms

test: ## everything: format, clippy, core tests, SQL regression tests, server and KMS tests
	@scripts/test.sh

setup: ## install what building needs, if it is missing: PostgreSQL with its server headers, a C compiler (Debian, Ubuntu)
	@scripts/setup.sh

build: ## build the extension's library; installs nothing, but says what is missing
	@scripts/build.sh

install: ## build, and copy the files into PostgreSQL's directories (DESTDIR=/some/root goes before them)
	@scripts/install.sh

uninstall: ## remove those files (DESTDIR as above)
	@scripts/install.sh uninstall

deb: ## build the Debian package postgresql-NN-envelope-pg of the chosen PostgreSQL, into target/deb
	@scripts/package.sh

test-versions: ## the SQL and server tests on PostgreSQL 14 to 18, as far as they are here (VERSIONS="16 /path/to/pg_config")
	@scripts/setup.sh test
	@scripts/versions.sh $(VERSIONS)

test-pg-upgrade: ## pg_upgrade with encrypted data, from OLD=/path/to/pg_config to NEW=/path/to/pg_config, both with the extension
	@scripts/test-pg-upgrade.sh $(OLD) $(NEW)

test-package: ## install that package into a clean Debian root (debootstrap, as root), use it and purge it
	@scripts/test-package.sh

sbom: ## write a software bill of materials (CycloneDX) into target/sbom (installs cargo-cyclonedx into target/)
	@scripts/sbom.sh

# What PGXN's client calls besides install and uninstall.
all: build
installcheck: regress

fmt: ## format the source
	cargo fmt --all

lint: ## cargo fmt --check, and clippy with warnings denied
	@scripts/lint.sh

test-crates: ## tests of the crates that know no PostgreSQL
	@scripts/setup.sh test
	cargo test --release -p envelope_core -p envelope_kms -p envelope_broker -p envelope_simulation

regress: install ## SQL regression tests
	@scripts/regress.sh $(TESTS)

test-server: install ## tests in Rust against a PostgreSQL server and a KMS emulator (TESTS="cache stale": only these files)
	@scripts/setup.sh test
	@scripts/test-server.sh $(TESTS)

test-docs: install ## run the SQL of README and docs/guide, and look for names that are not there (PAGES="docs/guide/types.md")
	@scripts/setup.sh kms
	@scripts/test-docs.sh $(PAGES)

test-clients: install ## the examples of drivers and ORMs (TESTS="with_pg"), as far as their languages are on this machine
	@scripts/setup.sh clients
	@scripts/test-clients.sh $(TESTS)

soak: install ## sessions under every KMS fault for 3 minutes (SOAK_SECONDS=180)
	@scripts/setup.sh test
	SOAK_SECONDS=$${SOAK_SECONDS:-180} cargo test -p server_tests --test soak -- --nocapture

bench: install ## measure it beside pgcrypto, and write docs/BENCHMARKS.md (BENCH_QUICK=1: a smoke run)
	@scripts/setup.sh test
	@scripts/setup.sh bench
	@scripts/bench.sh

bench-core: ## criterion benchmarks of the core crate
	cargo bench -p envelope_core

bench-instructions: install ## instructions that a value costs, counted with callgrind (BYTES=16)
	@scripts/setup.sh bench
	@scripts/instructions.sh $(BYTES)

simulate: ## the deterministic simulation for long (SIM_HISTORIES=200 SIM_STEPS=2000000; SIM_SEED=N replays one history)
	SIM_HISTORIES=$${SIM_HISTORIES:-200} SIM_STEPS=$${SIM_STEPS:-2000000} \
		cargo test --release -p envelope_simulation no_history -- --nocapture

rotation-load: install ## rotate 5 million rows while others write them (ROWS=5000000)
	@scripts/setup.sh test
	ROWS=$${ROWS:-5000000} PAIRS=$${PAIRS:-5} BASELINE_SECONDS=10 cargo test -p server_tests --test rotation_load -- --nocapture

fuzz: ## fuzz the broker's protocol and the value format, each for a minute (FUZZ_SECONDS=60; installs cargo-fuzz into target/)
	@scripts/fuzz.sh

memcheck: install ## SQL regression tests on a server under valgrind: no error with the library in its stack (TESTS="types nulls")
	@scripts/setup.sh test
	@scripts/memcheck.sh $(TESTS)

audit: ## licences, sources and advisories of the dependencies (needs cargo-deny)
	@scripts/audit.sh

clean: ## remove everything that was built
	cargo clean
