#!/bin/bash
# Measures envelope_pg beside pgcrypto, and writes docs/BENCHMARKS.md and docs/benchmarks.svg. BENCH_QUICK=1: a smoke run,
# which writes to target/bench instead.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
export BENCH_DIR=$target_dir/bench
mkdir -p "$BENCH_DIR"
TOP=25 scripts/instructions.sh 16 >"$BENCH_DIR/instructions.txt"
times=(--warm-up-time 1 --measurement-time 2)
if [ "${BENCH_QUICK:-0}" != 0 ]; then times=(--quick); fi
cargo bench --quiet -p envelope_core --bench core -- "${times[@]}" 2>/dev/null >"$BENCH_DIR/core.txt"
cargo run --quiet -p envelope_bench
