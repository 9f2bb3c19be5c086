#!/bin/bash
# Measures searches in encrypted columns beside those in plain text, and prints CSV: bench-search.sh [ROWS [REPETITIONS]]
#
# bench/search_chart.py makes the table and the charts of docs/SEARCH.md from it. 10,000,000 rows take 3 GB of disk; of those, only
# the first million has values, and there are no digests.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
export EXTRA_CONF="shared_buffers = '1GB'
max_wal_size = '1GB'
wal_level = minimal
max_wal_senders = 0
autovacuum = off"
rows=${1:-1000000} repetitions=${2:-5}

# shellcheck disable=SC2317  # called below
measure() {
    local value="'person ' || lpad(:n::text, 8, '0')" kind repetition
    psql -X -q -v ON_ERROR_STOP=1 -v "rows=$rows" -v "repetitions=$repetitions" -c 'CREATE EXTENSION envelope_pg' -f bench/sql/search.sql
    local random="\\set n random(1, 100000000)"
    printf '%s\nINSERT INTO insert_plain VALUES (:n, %s);\n' "$random" "$value" >"$scripts/plaintext"
    # pgbench would take :bench for a variable, also in quotes.
    printf "%s\nINSERT INTO insert_token VALUES (:n, env_encrypt(%s, 'local' || chr(58) || 'bench'), env_blind_index(%s, 'bench'));\n" \
        "$random" "$value" "$value" >"$scripts/value and token"
    for ((repetition = 0; repetition < repetitions; repetition++)); do
        for kind in plaintext "value and token"; do
            printf '%s,%s,' "$repetition" "$kind"
            pgbench -n -M prepared -c 1 -t 20000 -f "$scripts/$kind" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
        done
    done | sort -t, -k2,2 -k3,3n | awk -F, -v rows="$rows" '
        { amounts[$2, ++count[$2]] = $3 }
        END {
            split("plaintext,value and token", kinds, ",")
            for (i = 1; i <= 2; i++) {
                median[i] = amounts[kinds[i], int((count[kinds[i]] + 1) / 2)]
                printf "%d,insert,%s,TPS,%s,%s\n", rows, kinds[i], median[i], median[i] / median[1]
            }
        }'
}

if [ "${BENCH_SEARCH_IN_CLUSTER:-}" = yes ]; then
    scripts=$(mktemp -d)
    trap 'rm -rf "$scripts"' EXIT
    cd "$root_dir"
    measure
else
    BENCH_SEARCH_IN_CLUSTER=yes "$root_dir/scripts/with-cluster.sh" "$0" "$rows" "$repetitions"
fi
