#!/bin/bash
# Builds the extension and installs it into the chosen PostgreSQL, or with "uninstall" removes it.
#
# DESTDIR=/some/root goes before every path, for packages.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
library_dir=${DESTDIR:-}$("$pg_config" --pkglibdir)
extension_dir=${DESTDIR:-}$("$pg_config" --sharedir)/extension

# Runs a command that writes into the given directory, as root if need be.
writing_to() {
    local dir=$1
    shift
    if [ -w "$dir" ]; then "$@"; else as_root "$@"; fi
}

# A running server has the library mapped, so it is replaced by a rename and never overwritten.
put() {
    local from=$1 to=$2 mode=$3
    if ! cmp -s "$from" "$to"; then
        writing_to "${to%/*}" install -m "$mode" "$from" "$to.new.$$"
        writing_to "${to%/*}" mv -f "$to.new.$$" "$to"
        echo "installed $to"
        changed=yes
    fi
}

cd "$root_dir"
if [ "${1:-}" = uninstall ]; then
    for file in "$library_dir/envelope_pg.so" "$extension_dir/envelope_pg.control" "$extension_dir"/envelope_pg--*.sql; do
        if [ -e "$file" ]; then
            writing_to "${file%/*}" rm -f "$file"
            echo "removed $file"
        fi
    done
    exit
fi

# "sudo make install" after "make build" may find no cargo on root's PATH.
if command -v cargo >/dev/null; then
    scripts/build.sh
elif [ "$(cat "$target_dir/release/envelope_pg.major" 2>/dev/null)" != "$pg_major" ]; then
    die "not built for PostgreSQL $pg_major yet, and there is no cargo here; run 'make build' first"
fi
if [ -n "${DESTDIR:-}" ]; then mkdir -p "$library_dir" "$extension_dir"; fi
put "$target_dir/release/libenvelope_pg.so" "$library_dir/envelope_pg.so" 755
scripts/assemble.sh
for file in "$target_dir"/sql/envelope_pg--*.sql envelope_pg.control; do
    put "$file" "$extension_dir/${file##*/}" 644
done
[ -n "${changed:-}" ] || echo "nothing to install: this build is in $library_dir and $extension_dir"
