#!/bin/bash
# Installs into an empty root and uninstalls again: nothing may be left.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
DESTDIR=$(mktemp -d)
export DESTDIR
trap 'rm -rf "$DESTDIR"' EXIT
scripts/install.sh >/dev/null
[ "$(find "$DESTDIR" -name 'envelope_pg*' -type f | wc -l)" -ge 4 ] || die "these files are installed only: $(find "$DESTDIR" -type f)"
scripts/install.sh uninstall >/dev/null
left=$(find "$DESTDIR" -type f)
[ -z "$left" ] || die "uninstalling leaves $left"
echo "install: 1 passed, 0 failed"
