#!/bin/bash
# Measures searches in encrypted columns beside those in plain text, and prints a table: bench-search.sh [ROWS]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
export EXTRA_CONF="shared_buffers = '1GB'
max_wal_size = '8GB'
autovacuum = off"
"$root_dir/scripts/with-cluster.sh" psql -X -v ON_ERROR_STOP=1 -v "rows=${1:-1000000}" \
    -c 'CREATE EXTENSION envelope_pg' -f "$root_dir/bench/sql/search.sql"
