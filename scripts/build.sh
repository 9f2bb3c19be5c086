#!/bin/bash
# Builds the extension's library for the chosen PostgreSQL. Installs nothing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_tools
need_postgres
cd "$root_dir"
PGRX_PG_CONFIG_PATH=$pg_config cargo build --release -p envelope_pg --features "pg$pg_major" "$@"
echo "$pg_major" >"$target_dir/release/envelope_pg.major"
