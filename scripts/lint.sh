#!/bin/bash
# Checks formatting, and clippy with warnings denied; in the release profile, to share dependencies with the build.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
cargo fmt --all --check
PGRX_PG_CONFIG_PATH=$pg_config cargo clippy --release --workspace --all-targets \
    --features "envelope_pg/pg$pg_major" -- -D warnings
if command -v shellcheck >/dev/null; then
    shellcheck --external-sources scripts/*.sh demo/*.sh .ci/run
fi
