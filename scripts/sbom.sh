#!/bin/bash
# Writes a software bill of materials (CycloneDX) of the library's dependencies into target/sbom. Installs cargo-cyclonedx into
# target/tools if it is missing, which takes some minutes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
export PATH=$PATH:$target_dir/tools/bin
command -v cargo-cyclonedx >/dev/null || cargo install cargo-cyclonedx --locked --root "$target_dir/tools"
mkdir -p "$target_dir/sbom"
# It writes a file beside the Cargo.toml of each crate of the workspace: all but that of the library go.
cargo cyclonedx --format json --no-build-deps --features "pg$pg_major" --target-in-filename --override-filename envelope_pg.cdx
mv envelope_pg.cdx*.json "$target_dir/sbom/"
find bench crates tests -name 'envelope_pg.cdx*.json' -delete
ls "$target_dir"/sbom/*
