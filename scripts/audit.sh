#!/bin/bash
# Checks licences, sources and known vulnerabilities of the dependencies, as far as the tools are installed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
if command -v cargo-deny >/dev/null; then
    cargo deny --offline check bans licenses sources
    # Advisories need a copy of the RustSec database.
    if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then
        cargo deny --offline check --disable-fetch advisories
    else
        echo "audit: advisories skipped, there is no copy of their database"
    fi
else
    echo "audit: skipped, cargo-deny is not installed"
fi
if command -v cargo-audit >/dev/null && [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-db" ]; then
    cargo audit --no-fetch
fi
