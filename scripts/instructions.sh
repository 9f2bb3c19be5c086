#!/bin/bash
# Counts the instructions that a value costs in a PostgreSQL backend, exactly: instructions.sh [BYTES [ROWS]]
# Compares them with tests/instructions.limits: instructions.sh check (UPDATE_EXPECTED=1 writes that file anew)
#
# A single-user backend runs each query over ROWS and over 2 * ROWS rows under callgrind, which dumps its counts after each
# query. The difference divided by ROWS is what one more row costs: start, planning and first-time work cancel out. The same
# binary gives the same counts again, whatever else the machine does. valgrind knows no AVX-512, so a machine that has it
# takes other paths in the cipher and in memcpy than the ones counted here; time is measured by `make bench`.
#
# KEEP=DIRECTORY keeps the dumps there, for callgrind_annotate.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
command -v valgrind >/dev/null || die "valgrind is not installed; run 'scripts/setup.sh bench'"
limits=$root_dir/tests/instructions.limits
# More than this over the limit, in percent, is a failure. The counts of one binary are the same on each machine; another
# compiler, libc or minor release of PostgreSQL moves them by less.
tolerance=4
check=
if [ "${1:-}" = check ]; then
    check=yes
    shift
fi
bytes=${1:-16} rows=${2:-1000} top=${TOP:-40}
bin_dir=$("$pg_config" --bindir)

dir=$(mktemp -d /tmp/envelope_pg.XXXXXX)
trap 'rm -rf "$dir"' EXIT
give_to_server_user "$dir"
cd "$dir"
unset PGDATA PGOPTIONS
"${as_server[@]}" "$bin_dir/initdb" -D data -U postgres --encoding=UTF8 --locale=C --no-sync >log 2>&1
"${as_server[@]}" tee -a data/postgresql.conf >/dev/null <<CONF
envelope_pg.local_keyring = '$dir/keys.json'
shared_buffers = '256MB'
fsync = off
jit = off
CONF

# A line is a statement in single-user mode. EXTERNAL: a value that is compressed or not would be another measurement.
plain="left(repeat(md5(i::text), $bytes / 32 + 1), $bytes)"
make_table() {
    cat <<SQL
CREATE TABLE $1 (plain text, bytes bytea, value bytea, bound bytea, id int)
ALTER TABLE $1 ALTER plain SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL, ALTER value SET STORAGE EXTERNAL, ALTER bound SET STORAGE EXTERNAL
INSERT INTO $1 SELECT $plain, convert_to($plain, 'UTF8'), env_encrypt($plain, 'local:dev'), env_encrypt($plain, 'local:dev', '{"table": "t", "tenant": "7"}', 'row'), i FROM generate_series(1, $2) i
VACUUM ANALYZE $1
SQL
}
{
    echo "CREATE EXTENSION envelope_pg"
    echo "SELECT env_local_create_key('dev')"
    echo "SELECT env_create_index_key('index', 'local:dev')"
    echo "CREATE SERVER named FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:dev')"
    make_table once "$rows"
    make_table twice $((2 * rows))
} >setup.sql
"${as_server[@]}" "$bin_dir/postgres" --single -D data postgres <setup.sql >setup.out 2>>log

# NAME | EXPRESSION | the name that it is compared with
cases=(
    "scan of plaintext|count(plain)|"
    "scan of values|count(value)|"
    "convert_to (passthrough)|count(convert_to(plain, 'UTF8'))|"
    "convert_from (passthrough)|count(convert_from(bytes, 'UTF8'))|"
    "env_encrypt(text)|count(env_encrypt(plain, 'local:dev'))|convert_to (passthrough)"
    "env_encrypt(text) by key:name|count(env_encrypt(plain, 'key:named'))|convert_to (passthrough)"
    "env_encrypt(text, context, aad)|count(env_encrypt(plain, 'local:dev', '{\"table\": \"t\", \"tenant\": \"7\"}', 'row'))|convert_to (passthrough)"
    "env_encrypt(bytea)|count(env_encrypt(bytes, 'local:dev'))|convert_to (passthrough)"
    "env_decrypt(text)|count(env_decrypt(value))|convert_from (passthrough)"
    "env_decrypt(text, aad)|count(env_decrypt(bound, 'row'))|convert_from (passthrough)"
    "env_is_envelope|count(env_is_envelope(value))|convert_from (passthrough)"
    "env_key_id|count(env_key_id(value))|convert_from (passthrough)"
    "env_dek_id|count(env_dek_id(value))|convert_from (passthrough)"
    "env_blind_index(text)|count(env_blind_index(plain, 'index'))|convert_to (passthrough)"
    "env_blind_index(bigint)|count(env_blind_index(id::bigint, 'index'))|convert_to (passthrough)"
)
# The first round is not counted: it makes the data keys, and fills PostgreSQL's caches.
for _ in warm counted; do
    for table in once twice; do
        for case in "${cases[@]}"; do
            IFS='|' read -r _ expression _ <<<"$case"
            echo "SELECT $expression FROM $table"
        done
    done
done >queries.sql
"${as_server[@]}" valgrind --tool=callgrind --callgrind-out-file="$dir/dump" --toggle-collect=standard_ExecutorRun \
    --dump-after=standard_ExecutorRun "$bin_dir/postgres" --single -D data postgres <queries.sql >out 2>>log
answers=$(grep -cE "count = \"($rows|$((2 * rows)))\"" out || true)
[ "$answers" = $((4 * ${#cases[@]})) ] || { tail -n 20 log >&2; die "the queries failed"; }

total() { sed -n 's/^totals: //p' "dump.$1"; }
# The dump of a case in the counted round: over ROWS rows, and over twice as many.
once_dump() { echo $((2 * ${#cases[@]} + $1 + 1)); }
twice_dump() { echo $((3 * ${#cases[@]} + $1 + 1)); }

echo "Instructions per row of $bytes bytes, from $rows and $((2 * rows)) rows, $("$bin_dir/postgres" --version):"
echo
declare -A per_row
for index in "${!cases[@]}"; do
    IFS='|' read -r name _ passthrough <<<"${cases[$index]}"
    per_row[$name]=$((($(total "$(twice_dump "$index")") - $(total "$(once_dump "$index")")) / rows))
    ratio=
    [ -z "$passthrough" ] || ratio=$(awk "BEGIN { printf \"%.2fx\", ${per_row[$name]} / ${per_row[$passthrough]} }")
    printf '  %-34s %8d  %s\n' "$name" "${per_row[$name]}" "$ratio"
done

if [ -n "$check" ]; then
    if [ -n "${UPDATE_EXPECTED:-}" ]; then
        {
            sed -n '/^#/p' "$limits"
            echo "postgresql $pg_major"
            for case in "${cases[@]}"; do
                name=${case%%|*}
                if [[ $name = env_* ]]; then echo "${per_row[$name]} $name"; fi
            done
        } >"$limits.new"
        mv "$limits.new" "$limits"
    fi
    echo
    limits_major=$(sed -n 's/^postgresql //p' "$limits")
    if [ "$limits_major" != "$pg_major" ]; then
        echo "the limits are those of PostgreSQL $limits_major, so nothing is compared"
        exit
    fi
    passed=0 failed=0
    while read -r limit name; do
        now=${per_row[$name]:-}
        [ -n "$now" ] || die "tests/instructions.limits names $name, which is not measured"
        if [ $((now * 100)) -le $((limit * (100 + tolerance))) ]; then
            passed=$((passed + 1)) verdict=ok
        else
            failed=$((failed + 1)) verdict="FAILED: dearer than tests/instructions.limits allows"
        fi
        printf '  %-34s %8d  limit %8d  %+6.1f %%  %s\n' "$name" "$now" "$limit" \
            "$(awk "BEGIN { print ($now - $limit) * 100 / $limit }")" "$verdict"
    done < <(grep -E '^[0-9]' "$limits")
    echo "instructions: $passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
fi

# Inclusive counts of each function, subtracted the same way.
inclusive() {
    callgrind_annotate --inclusive=yes --threshold=100 --auto=no "dump.$1" 2>/dev/null |
        sed -nE 's/^ *([0-9,]+) \([ 0-9.]+%\) +[^:]*:(.*)$/\1\t\2/p' | sed -E 's/ \[[^]]*\/([^]\/]*)\]/ [\1]/' | tr -d ','
}
for index in "${!cases[@]}"; do
    IFS='|' read -r name _ _ <<<"${cases[$index]}"
    case $name in "env_encrypt(text)" | "env_decrypt(text)" | "env_encrypt(text) by key:name" | "env_is_envelope" | "env_key_id" | "env_blind_index(text)") ;; *) continue ;; esac
    echo
    echo "$name, by function with what it calls (instructions per row):"
    echo
    awk -F '\t' -v rows="$rows" 'NR == FNR { once[$2] = $1; next } { printf "%8d  %s\n", ($1 - once[$2]) / rows, $2 }' \
        <(inclusive "$(once_dump "$index")") <(inclusive "$(twice_dump "$index")") |
        sort -rn |
        awk -v top="$top" '/\[envelope_pg.so\]|palloc|detoast|setjmp/ && $1 > 0 && ++shown <= top { print "  " substr($0, 1, 110) }'
done
if [ -n "${KEEP:-}" ]; then
    mkdir -p "$KEEP"
    cp dump.* queries.sql "$KEEP"
fi
