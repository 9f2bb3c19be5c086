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

# CPU time of the backend for each equality search by a client, a prepared statement of the protocol, in microseconds. The first
# hundred, with custom plans and all that is cold, do not count.
# shellcheck disable=SC2317  # called below
lookup() {
    cat >"$scripts/lookup" <<SQL
\\set i :i + 1
\\if :i = 100
SELECT cpu_ns() AS before \\gset
\\endif
\\set n random(1, $rows)
SELECT id FROM person WHERE $1;
\\if :i = 20100
INSERT INTO lookup SELECT (cpu_ns() - :before) / 2e4 / 1e3;
\\endif
SQL
    psql -X -q -c 'CREATE TABLE IF NOT EXISTS lookup (us float8); TRUNCATE lookup' 2>/dev/null
    pgbench -n -M prepared -c 1 -t 20100 -D i=0 -f "$scripts/lookup" >/dev/null
    psql -X -q -A -t -c 'SELECT us FROM lookup'
}

# The medians of lines REPETITION,CONTENDER,AMOUNT as CSV: medians QUESTION UNIT CONTENDER...
# shellcheck disable=SC2317
medians() {
    local question=$1 unit=$2
    shift 2
    sort -t, -k2,2 -k3,3n | awk -F, -v rows="$rows" -v question="$question" -v unit="$unit" -v contenders="$(IFS=,; echo "$*")" '
        { amounts[$2, ++count[$2]] = $3 }
        END {
            last = split(contenders, names, ",")
            for (i = 1; i <= last; i++) {
                median[i] = amounts[names[i], int((count[names[i]] + 1) / 2)]
                printf "%d,%s,%s,%s,%s,%s\n", rows, question, names[i], unit, median[i], median[i] / median[1]
            }
        }'
}

# shellcheck disable=SC2317
measure() {
    local value="'person ' || lpad(:n::text, 8, '0')" kind repetition
    psql -X -q -v ON_ERROR_STOP=1 -v "rows=$rows" -v "repetitions=$repetitions" -c 'CREATE EXTENSION envelope_pg' -f bench/sql/search.sql
    local random="\\set n random(1, 100000000)"
    printf '%s\nINSERT INTO insert_plain VALUES (:n, %s);\n' "$random" "$value" >"$scripts/plaintext"
    # pgbench would take :bench for a variable, also in quotes.
    printf "%s\nINSERT INTO insert_token VALUES (:n, env_encrypt(%s, 'local' || chr(58) || 'bench'), env_blind_index(%s, 'bench'));\n" \
        "$random" "$value" "$value" >"$scripts/value and token"
    for ((repetition = 0; repetition < repetitions; repetition++)); do
        echo "$repetition,plaintext,$(lookup "plain = $value")"
        echo "$repetition,token,$(lookup "token = env_blind_index($value, 'bench')")"
    done | medians "equality by a client" us plaintext token
    for ((repetition = 0; repetition < repetitions; repetition++)); do
        for kind in plaintext "value and token"; do
            printf '%s,%s,' "$repetition" "$kind"
            pgbench -n -M prepared -c 1 -t 20000 -f "$scripts/$kind" | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
        done
    done | medians insert TPS plaintext "value and token"
}

if [ "${BENCH_SEARCH_IN_CLUSTER:-}" = yes ]; then
    scripts=$(mktemp -d)
    trap 'rm -rf "$scripts"' EXIT
    cd "$root_dir"
    measure
else
    BENCH_SEARCH_IN_CLUSTER=yes "$root_dir/scripts/with-cluster.sh" "$0" "$rows" "$repetitions"
fi
