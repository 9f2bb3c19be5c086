#!/bin/bash
# Runs the server tests: test-server.sh [NAME...], NAME being a file of tests/server/tests without its .rs.
#
# Each file is a program with servers and an emulator of its own, and waits more than it computes, so JOBS of them (as many as
# there are processors) run at the same time. Those that measure memory or time, or load the machine, run alone afterwards. What
# fails runs once more, alone: if it passes then it is flaky, which the closing line of scripts/test.sh says, for someone to look into.
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

# Runs a program where cargo would, and prints all that it said at once: run PROGRAM [again].
run() {
    local program name output again=${2:-} start=$SECONDS result=ok counts=test
    program=$(realpath "$1")
    name=$(name_of "$program")
    output=$out_dir/$name${again:+.again}
    (cd tests/server && "$program") >"$output" 2>&1 </dev/null || result=FAILED
    # Only the last run is counted.
    [ $result = ok ] || [ -n "$again" ] || counts=first
    {
        flock 9
        grep -vE '^$|^running [0-9]+ tests?$|^test .* \.\.\. (ok|ignored)' "$output" | sed "s/^test result:/$counts result:/" || true
        echo "-- $name${again:+ again, alone}: $result, $((SECONDS - start)) s"
    } 9>"$out_dir/.lock"
    [ $result != ok ] || return 0
    if [ -z "$again" ]; then
        echo "$program" >>"$out_dir/.failed"
    else
        # A program that ends without its closing line has failed a test at the least.
        grep -q '^test result:' "$output" || echo "test result: FAILED. 0 passed; 1 failed; $name ended early"
        return 1
    fi
}
name_of() {
    basename "$1" | sed 's/-[0-9a-f]*$//'
}
export -f run name_of
export out_dir

together=() last=()
for program in "${programs[@]}"; do
    if [[ $alone = *" $(name_of "$program") "* ]]; then last+=("$program"); else together+=("$program"); fi
done
if [ ${#together[@]} -gt 0 ]; then
    printf '%s\0' "${together[@]}" | xargs -0 -n 1 -P "${JOBS:-$(nproc)}" bash -c 'run "$0"'
fi
for program in "${last[@]}"; do run "$program"; done
status=0
touch "$out_dir/.failed"
while read -r program; do
    if run "$program" again; then echo "flaky: $(name_of "$program")"; else status=1; fi
done <"$out_dir/.failed"
exit $status
