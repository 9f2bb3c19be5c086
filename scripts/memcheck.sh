#!/bin/bash
# Runs SQL regression tests on a server under valgrind's memcheck, and fails if it finds an error that the library has a part in:
# memcheck.sh [TEST...]
#
# All processes of the server are looked at, the broker included, and the library is the one that is installed. What counts is an
# invalid read or write, a use of memory that was never written, or a wrong free, with envelope_pg.so in one of its stacks: PostgreSQL,
# which was not built for valgrind, has some of its own. Memory contexts are not known to valgrind: what they have given out it sees
# as one block, so reading past the end of a datum in them is for the tests of the crates and the fuzzers to find.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
command -v valgrind >/dev/null || die "valgrind is not installed; run 'scripts/setup.sh bench'"
out_dir=$target_dir/memcheck
tests=("$@")
[ $# -gt 0 ] || tests=(types nulls errors inspect context_aad wrapped_keys local keys trigger trigger_edits search inventory generated)

rm -rf "$out_dir"
mkdir -p "$out_dir"
# The server's user writes there.
chmod 777 "$out_dir"
status=0
SERVER_WRAPPER="valgrind --quiet --num-callers=40 --error-limit=no --log-file=$out_dir/%p.log" \
    "$root_dir/scripts/regress.sh" "${tests[@]}" || status=$?
[ -n "$(find "$out_dir" -name '*.log')" ] || die "valgrind has not run"

# An error is a paragraph.
cat "$out_dir"/*.log | sed -E 's/^==[0-9]+== ?//' | awk -v RS= '/envelope_pg\.so/ { print $0 "\n"; found++ } END { print found + 0 > "/dev/stderr" }' \
    >"$out_dir/found" 2>"$out_dir/count"
cat "$out_dir/found"
echo "memcheck: $(find "$out_dir" -name '*.log' | wc -l) processes, $(cat "$out_dir/count") errors with envelope_pg.so in them"
[ "$(cat "$out_dir/count")" = 0 ] || status=1
exit $status
