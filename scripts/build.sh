#!/bin/bash
# Builds the extension's library for the chosen PostgreSQL.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
PGRX_PG_CONFIG_PATH=$pg_config exec cargo build --release -p envelope_pg --features "pg$pg_major"
