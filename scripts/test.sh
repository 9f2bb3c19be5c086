#!/bin/bash
# Runs every test in order, a line per stage with its duration, and counts them at the end.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
mkdir -p "$target_dir"
log=$target_dir/test.log
: >"$log"
failed_stages=()

stage() {
    local name=$1 start=$SECONDS result=ok
    shift
    echo "== $name: $*"
    "$@" 2>&1 | tee -a "$log" || result=FAILED
    echo "== $name: $result, $((SECONDS - start)) s"
    [ $result = ok ] || failed_stages+=("$name")
}

stage setup scripts/setup.sh test
stage build scripts/build.sh
stage install scripts/install.sh
[ ${#failed_stages[@]} -eq 0 ] || die "cannot test: ${failed_stages[*]} failed"
stage uninstall scripts/test-install.sh
stage lint scripts/lint.sh
stage test-crates cargo test --release --no-fail-fast -p envelope_core -p envelope_kms -p envelope_broker -p envelope_simulation
stage regress scripts/regress.sh
EXTRA_CONF="shared_preload_libraries = 'envelope_pg'" stage regress-preload scripts/regress.sh
stage instructions scripts/instructions.sh check
stage docs scripts/test-docs.sh
stage clients scripts/test-clients.sh
stage test-server scripts/test-server.sh
stage audit scripts/audit.sh

# cargo: "test result: ok. 3 passed; 0 failed; ..."; regress.sh: "regress: 8 passed, 0 failed"; others the same.
sum() {
    sed -nE "s/^(test result:|regress:|instructions:|reference:|names:|examples:|clients:|install:|capacity:|images:|files:).* ([0-9]+) $1[;,]?.*/\2/p" "$log" | awk '{ total += $1 } END { print total + 0 }'
}
closing="$(sum passed) passed, $(sum failed) failed"
if [ ${#failed_stages[@]} -gt 0 ]; then
    closing+=", ${#failed_stages[@]} stages failed (${failed_stages[*]})"
fi
# scripts/test-server.sh: what failed and then passed alone.
flaky=$(sed -n 's/^flaky: //p' "$log" | paste -sd ' ')
echo "$closing${flaky:+, flaky: $flaky}, $SECONDS s"
[ ${#failed_stages[@]} -eq 0 ]
