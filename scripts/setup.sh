#!/bin/bash
# Installs what building (and with "test": testing, with "bench": measuring) needs, on Debian and Ubuntu; does nothing if it
# is there already.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

# Where the emulator differs from AWS is known for this version, and the tests work around it.
moto_version=5.2.5

command -v cargo >/dev/null || die "no Rust toolchain: install one from https://rustup.rs, 1.95 or newer"

packages=()
pg_config=$(find_pg_config)
if [ -z "$pg_config" ]; then
    packages+=(postgresql-server)
fi
if ! command -v cc >/dev/null; then
    packages+=(gcc libc6-dev)
fi
if [ "${1:-}" = test ] && [ ! -x "$target_dir/venv/bin/moto_server" ] \
    && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3-venv)
fi

if [ "${1:-}" = bench ]; then
    if ! command -v valgrind >/dev/null; then packages+=(valgrind); fi
    # pgcrypto is what we are measured against. Debian and Ubuntu have it in the server's own package.
    if [ -n "$pg_config" ] && [ ! -f "$("$pg_config" --sharedir)/extension/pgcrypto.control" ]; then
        packages+=(postgresql-contrib)
    fi
fi

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
        die "no apt-get here: install a C compiler, clang, PostgreSQL with its server headers (14 to 18) and Python's venv yourself, then set PG_CONFIG"
    echo "installing: ${packages[*]}"
    as_root apt-get update -qq
    if [ "${packages[0]}" = postgresql-server ]; then
        # "postgresql" depends on the distribution's own major.
        major=$(apt-cache depends postgresql | sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | sort -V | tail -n 1)
        [ -n "$major" ] || die "apt knows no package postgresql"
        packages=("postgresql-$major" "postgresql-server-dev-$major" "${packages[@]:1}")
        # Debian would create and start a cluster. We do not use it, so keep it from doing that, this once.
        no_cluster=/etc/postgresql-common/createcluster.d/envelope_pg_setup.conf
        as_root mkdir -p "${no_cluster%/*}"
        echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
        trap 'as_root rm -f "$no_cluster"' EXIT
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        >"${TMPDIR:-/tmp}/envelope_pg-apt.log" 2>&1 || {
        tail -n 30 "${TMPDIR:-/tmp}/envelope_pg-apt.log" >&2
        die "apt-get install failed"
    }
    rm -f "${TMPDIR:-/tmp}/envelope_pg-apt.log"
fi

if [ "${1:-}" = test ] && [ ! -x "$target_dir/venv/bin/moto_server" ]; then
    echo "installing the KMS emulator: moto $moto_version"
    rm -rf "$target_dir/venv"
    mkdir -p "$target_dir"
    python3 -m venv "$target_dir/venv"
    "$target_dir/venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto_version"
fi
