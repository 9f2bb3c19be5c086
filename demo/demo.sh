#!/bin/bash
# The demo: runs each demo/*.sql on the server that PG* points to ("make demo" starts one), and stops at the first surprise.
set -euo pipefail
cd "$(dirname "$0")"
for step in [0-9]*.sql; do
    psql -qX -v ON_ERROR_STOP=1 -P footer=off -P null='(null)' <"$step" 2>&1
done
