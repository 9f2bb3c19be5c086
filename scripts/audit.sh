#!/bin/bash
# Checks licences, sources and known vulnerabilities of the dependencies with cargo-deny (deny.toml).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
export PATH=$PATH:$target_dir/venv/bin
command -v cargo-deny >/dev/null || die "missing: cargo-deny; 'scripts/setup.sh test' installs it"
cargo deny --locked check bans licenses sources
# The database of advisories: fetched, or else the copy of an earlier run.
if cargo deny --locked fetch db >/dev/null 2>&1 || compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then
    cargo deny --locked check --disable-fetch advisories
else
    echo "audit: advisories not checked: their database is not reachable from here and there is no copy of it"
fi
