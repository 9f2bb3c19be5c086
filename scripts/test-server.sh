#!/bin/bash
# Runs the server tests: test-server.sh [NAME...], NAME being a file of tests/server/tests without its .rs.
#
# Each file is a program with servers and an emulator of its own, and waits more than it computes, so JOBS of them (as many as
# there are processors) run at the same time. Those that measure memory or time, or load the machine, run alone afterwards.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
alone=" cancel memory rotation_load soak "
out_dir=$target_dir/test-server
rm -rf "$out_dir"
mkdir -p "$out_dir"

which=()
for name in "$@"; do which+=(--test "$name"); done
[ $# -gt 0 ] || which=(--tests)
# The dev profile: these tests drive a server, and need no optimized code of their own.
cargo test --no-run -p server_tests "${which[@]}" 2>&1 | tee "$out_dir/build" | grep -v 'Executable' || true
[ "${PIPESTATUS[0]}" = 0 ] || die "the tests do not compile"
# Executable tests/cache.rs (target/debug/deps/cache-0123456789abcdef)
mapfile -t programs < <(sed -nE 's/^ *Executable (tests\/|unittests ).*\((.*)\)$/\2/p' "$out_dir/build")
[ ${#programs[@]} -gt 0 ] || die "no tests were built"

# Runs a program where cargo would, and prints all that it said at once.
run() {
    local program name start=$SECONDS result=ok
    program=$(realpath "$1")
    name=$(basename "$program" | sed 's/-[0-9a-f]*$//')
    (cd tests/server && "$program") >"$out_dir/$name" 2>&1 </dev/null || result=FAILED
    {
        flock 9
        grep -vE '^$|^running [0-9]+ tests?$|^test .* \.\.\. (ok|ignored)' "$out_dir/$name" || true
        echo "-- $name: $result, $((SECONDS - start)) s"
    } 9>"$out_dir/.lock"
    # A program that ends without its closing line has failed a test at the least.
    grep -q '^test result:' "$out_dir/$name" || echo "test result: FAILED. 0 passed; 1 failed; $name ended early"
    [ $result = ok ]
}
export -f run
export out_dir

together=() last=()
for program in "${programs[@]}"; do
    name=$(basename "$program" | sed 's/-[0-9a-f]*$//')
    if [[ $alone = *" $name "* ]]; then last+=("$program"); else together+=("$program"); fi
done
status=0
if [ ${#together[@]} -gt 0 ]; then
    printf '%s\0' "${together[@]}" | xargs -0 -n 1 -P "${JOBS:-$(nproc)}" bash -c 'run "$0"' || status=1
fi
for program in "${last[@]}"; do run "$program" || status=1; done
exit $status
