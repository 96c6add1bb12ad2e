# Everything a developer runs. Whatever is missing is set up first, under target/; nothing else is touched.
#
# VIRT_TEST_DATABASE_URL names a ready database server, VIRT_TEST_VCSIM a ready vcsim and VIRT_TEST_PROMTOOL a ready
# promtool: then those are used.

vcsim := $(or $(VIRT_TEST_VCSIM),$(CURDIR)/target/setup/bin/vcsim)
promtool := $(or $(VIRT_TEST_PROMTOOL),$(CURDIR)/target/setup/bin/promtool)
cluster := tests/support/cluster
bin := $(or $(CARGO_TARGET_DIR),target)/debug
# Most tests wait for the two they talk to, not for a core.
test_threads := $(or $(RUST_TEST_THREADS),6)
# Runs a command against a private cluster, which stops with it, also after Ctrl-C.
with_database := $(if $(VIRT_TEST_DATABASE_URL),,$(cluster) run test)

.PHONY: help setup private demo test interop drill soak deb package-test fuzz lint bench bench-scale clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what the others need, under target/: TimescaleDB, vcsim, promtool
	@tests/support/setup

# Also where VIRT_TEST_DATABASE_URL names another server: these start and stop, or restart, one of their own.
private:
	@env -u VIRT_TEST_DATABASE_URL tests/support/setup

demo: private ## simulator, database and collector with live rows, until Ctrl-C or DEMO_SECONDS; also DEMO_VMS, DEMO_HOSTS
	cargo build --locked --workspace --bins
	@$(cluster) run demo $(bin)/demo

test: setup ## all tests, against a private TimescaleDB
	RUST_TEST_THREADS=$(test_threads) VIRT_TEST_VCSIM=$(vcsim) VIRT_TEST_PROMTOOL=$(promtool) $(with_database) cargo test --workspace --locked $(if $(VIRT_TEST_DATABASE_URL),-- --skip drill::)

interop: private ## inventory and actions against what pyvmomi reads, the API against its document; needs python3, 9 minutes
	cargo build --locked --workspace --bins
	VIRT_TEST_VCSIM=$(vcsim) $(cluster) run interop tests/interop/run

drill: private ## hundreds of faults, the oracle after each; also SEED, FAULTS (300), ONLY (kill=60,lease=10)
	cargo build --locked --workspace --bins
	@$(cluster) run drill $(bin)/drill $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(ONLY),--only $(ONLY))

soak: private ## HOURS (2) with two collectors, five platforms, a fault a minute and a long outage of the database; also SEED
	cargo build --locked --workspace --bins
	@$(cluster) run soak $(bin)/soak $(if $(SEED),--seed $(SEED)) $(if $(HOURS),--hours $(HOURS))

deb: ## the Debian package, in target/debian; also DEB_VERSION
	@tests/support/setup deb
	cargo build --release --locked -p virt-collector --bin virt-collector
	@rm -rf target/package && mkdir -p target/package/share
	@cp -r sql/bootstrap.sql $(wildcard sql/grafana systemd/*.rules.yml) target/package/share/
	@tests/support/notices | gzip -9n >target/package/notices.gz
	@target/release/virt-collector man >target/package/virt-collector.8
	@target/release/virt-collector completions bash >target/package/virt-collector.bash
	@target/release/virt-collector completions zsh >target/package/_virt-collector
	@target/release/virt-collector completions fish >target/package/virt-collector.fish
	target/setup/bin/cargo-deb --no-build --locked $(if $(DEB_VERSION),--deb-version $(DEB_VERSION))

package-test: private deb ## install, run, upgrade, remove and purge the package in a Debian of its own, under systemd; needs root
	@tests/support/setup root
	cargo build --locked --workspace --bins
	@$(cluster) run package tests/package/run

fuzz: ## mutants of tests/fuzz against every decoder, SECONDS (600) each, all at once; findings go to target/fuzz
	FUZZ_SECONDS=$(or $(SECONDS),600) cargo test --locked --lib fuzz_ -- --nocapture --test-threads 8

lint: ## format, clippy, rustdoc, dependencies, shell scripts
	@tests/support/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --bench scale --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	tests/support/deny
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run tests/support/setup tests/support/cluster tests/support/deny tests/support/notices tests/interop/run tests/package/run tests/package/boot systemd/debian/postinst systemd/debian/postrm; \
	else echo "lint: the shell scripts are not checked: there is no shellcheck"; fi

bench: setup ## criterion benches, ratios, and the end-to-end runs of benches/
	$(if $(VIRT_TEST_DATABASE_URL),,$(cluster) run bench) cargo bench --locked

bench-scale: setup ## cost at 10,000 VMs, a quarter of an hour; also VMS, HOSTS, SECONDS (300), REQUESTS_PER_SECOND
	$(if $(VIRT_TEST_DATABASE_URL),,$(cluster) run bench) cargo bench --locked --bench scale

clean: ## stop the private clusters and remove target/
	@[ ! -d target/cluster ] || $(cluster) stop --all
	rm -rf target
