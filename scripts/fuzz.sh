#!/bin/bash
# Fuzzes each target for FUZZ_SECONDS (60): fuzz.sh [TARGET...]. What it learns is kept under target/, and so is cargo-fuzz.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
tools=$target_dir/tools
export PATH=$PATH:$tools/bin
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked --root "$tools"
# The dependencies at the versions of the extension.
cp Cargo.lock fuzz/Cargo.lock
cd fuzz
targets=("$@")
[ $# -gt 0 ] || targets=(framing protocol value)
for target in "${targets[@]}"; do
    corpus=$target_dir/fuzz/corpus/$target
    artifacts=$target_dir/fuzz/artifacts/$target
    mkdir -p "$corpus" "$artifacts"
    # With AddressSanitizer, for the C code and the `unsafe` code of libraries, and with debug assertions and overflow checks. The
    # flag is not a stable one; the compiler that builds the extension takes it all the same.
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer address --debug-assertions --fuzz-dir . --target-dir "$target_dir/fuzz" "$target" "$corpus" "seeds/$target" -- \
        -artifact_prefix="$artifacts/" -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 -timeout=5 \
        -verbosity=0 -print_final_stats=1
done
