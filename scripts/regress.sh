#!/bin/bash
# Runs the SQL regression tests on a throw-away server: regress.sh [TEST...]; results go to target/regress.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
pg_regress=$("$pg_config" --pkglibdir)/pgxs/src/test/regress/pg_regress
[ -x "$pg_regress" ] || die "no pg_regress in $pg_config's PostgreSQL"
out_dir=$target_dir/regress

tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
    for file in "$root_dir"/tests/regress/sql/*.sql; do
        file=${file##*/}
        tests+=("${file%.sql}")
    done
fi

rm -rf "$out_dir"
mkdir -p "$out_dir"
status=0
"$root_dir/scripts/with-cluster.sh" "$pg_regress" --bindir= --inputdir="$root_dir/tests/regress" \
    --outputdir="$out_dir" --encoding=UTF8 --dbname=envelope_pg_regress --load-extension=envelope_pg "${tests[@]}" >"$out_dir/log" 2>&1 || status=$?

# PostgreSQL 15 and older write "test NAME ... ok  12 ms", newer ones "ok 1  - NAME  12 ms".
grep -E '^(test |ok |not ok )' "$out_dir/log" || true
passed=$(grep -cE '^(test .*\.\.\. ok|ok )' "$out_dir/log" || true)
failed=$(grep -cE '^(test .*\.\.\. FAILED|not ok )' "$out_dir/log" || true)
if [ "$failed" -gt 0 ]; then
    cat "$out_dir/regression.diffs"
elif [ $status -ne 0 ]; then
    cat "$out_dir/log"
fi
echo "regress: $passed passed, $failed failed"
exit $status
