#!/bin/bash
# Checks formatting, and clippy with warnings denied; in the release profile, to share dependencies with the build.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
cargo fmt --all --check
PGRX_PG_CONFIG_PATH=$pg_config cargo clippy --release --workspace --all-targets \
    --features "envelope_pg/pg$pg_major" -- -D warnings
scripts/circles.py
# Unsafe code is in one place, where a reviewer looks.
if grep -rnE "\bunsafe\b" src --include='*.rs' | grep -vE '^src/pg/|^[^:]*:[0-9]+:\s*//'; then
    die "unsafe code outside of src/pg"
fi
for crate in core kms broker; do
    grep -q '^#!\[forbid(unsafe_code)\]' "crates/envelope_$crate/src/lib.rs" || die "envelope_$crate does not forbid unsafe code"
done
# One version everywhere.
version=$(sed -nE "s/^default_version = '(.*)'/\1/p" envelope_pg.control)
grep -q "^version = \"$version\"$" Cargo.toml || die "Cargo.toml has another version than envelope_pg.control: $version"
[ "$(grep -c "\"version\": \"$version\"" META.json)" = 2 ] || die "META.json has another version than envelope_pg.control: $version"
python3 -m json.tool META.json >/dev/null || die "META.json is not JSON"
make --dry-run all install installcheck uninstall >/dev/null || die "PGXN's client calls a target that is not there"
# cargo-pgrx would install an extension without functions, so build.rs refuses it: here for a program of that name.
refusal=$(mktemp -d)
trap 'rm -rf "$refusal"' EXIT
rustc --edition 2024 -o "$refusal/build" build.rs
printf '#!/bin/bash\n"%s/build"\n:\n' "$refusal" >"$refusal/cargo-pgrx"
chmod +x "$refusal/cargo-pgrx"
"$refusal/cargo-pgrx" | grep '^cargo::error=' >"$refusal/said" || die "build.rs does not refuse cargo-pgrx"
if "$refusal/build" | grep '^cargo::error='; then die "build.rs refuses others than cargo-pgrx"; fi
# Where "setup.sh test" puts them; a machine without them is told.
PATH=$PATH:$target_dir/venv/bin
if command -v shellcheck >/dev/null; then
    shellcheck --severity=warning --external-sources scripts/*.sh demo/*.sh .ci/run
else
    echo "lint: the scripts are not checked: no shellcheck"
fi
if command -v hadolint >/dev/null; then
    hadolint packaging/docker/Dockerfile
else
    echo "lint: the Dockerfile is not checked: no hadolint"
fi
if "$target_dir/venv/bin/python3" -c 'import compose_spec, yaml' 2>/dev/null; then
    "$target_dir/venv/bin/python3" scripts/images.py
else
    echo "lint: packaging/docker is not checked: no compose-spec"
fi
