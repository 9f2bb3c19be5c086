#!/bin/bash
# Builds and installs what the demo needs, a line a step with the details in target/demo.log; runs it; says what stays.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
mkdir -p "$target_dir"
log=$target_dir/demo.log
: >"$log"
packages_file=$target_dir/demo.packages
had_packages=$(dpkg-query -W -f '${Package}\n' 2>/dev/null | sort || true)

# Runs a command with its output in the log: step NAME COMMAND...; "$progress", if set, prints how far it is.
step() {
    local name=$1 started=$SECONDS pid status=0
    shift
    printf '%s ...' "$name"
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    while [ -t 1 ] && kill -0 "$pid" 2>/dev/null; do
        sleep 1
        printf '\r\033[K%s ... %s' "$name" "$("${progress:-true}" $((SECONDS - started)))"
    done
    wait "$pid" || status=$?
    if [ $status -ne 0 ]; then
        printf '\n'
        tail -n 40 "$log" >&2
        die "this failed; all of it is in $log"
    fi
    if [ -t 1 ]; then printf '\r\033[K%s ...' "$name"; fi
    printf ' done, %s s\n' $((SECONDS - started))
}

# How many crates are compiled, of how many, and for how long that may go on.
compiled() {
    local compiled left=
    compiled=$(grep -c '^ *Compiling' "$log" || true)
    if [ "$1" -ge 10 ] && [ "$compiled" -gt 20 ] && [ "$crates" -gt "$compiled" ]; then
        # The last crate is ours: to link it takes about as long as a fifth of the others.
        left=", about $(($1 * crates * 6 / 5 / compiled - $1)) s left"
    fi
    echo "$compiled of $crates crates, $1 s$left"
}

step "what building needs" scripts/setup.sh
step "the KMS emulator" scripts/setup.sh kms
need_postgres
# For the progress only: what keeps cargo from it is shown by the build.
crates=$({ cargo tree --prefix none -e normal,build -p envelope_pg --features "pg$pg_major" 2>>"$log" || true; } |
    sed 's/ (\*)$//' | sort -u | wc -l)
progress=compiled step "the extension for PostgreSQL $pg_major (some minutes the first time)" scripts/build.sh
step "installing it" scripts/install.sh
echo
scripts/with-kms.sh demo/demo.sh

new_packages=$(comm -13 <(echo "$had_packages") <(dpkg-query -W -f '${Package}\n' 2>/dev/null | sort || true) | paste -sd ' ')
[ -z "$new_packages" ] || echo "$new_packages" >>"$packages_file"
extension_dir=$("$pg_config" --sharedir)/extension
cat <<DONE

Done: every check passed. The server, its data and the emulator are gone. What stays on this machine:

    $("$pg_config" --pkglibdir)/envelope_pg.so
    $extension_dir/envelope_pg.control, envelope_pg--*.sql      make uninstall removes these three
    $target_dir: what was built, and the emulator      make clean, or rm -r target
DONE
if [ -s "$packages_file" ]; then
    echo "    packages: $(paste -sd " " "$packages_file")      apt-get remove, if nothing else uses them"
fi
echo
echo "\"make psql-kms\" gives you such a server of your own, \"make psql\" one with a local key and no KMS."
