#!/bin/bash
# Tests the documentation: test-docs.sh [PAGE...] runs the SQL blocks of README.md, OPERATIONS.md, SEARCH.md, docs/guide,
# docs/operate and docs/reference (or of these pages) on what
# "make psql-kms" offers, looks for names that are not there, and compares docs/reference with the catalog.
#
# UPDATE_EXPECTED=1 writes docs/reference, and the outputs that pages show, anew.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
if [ "${1:-}" != inside ]; then
    exec scripts/with-kms.sh "$0" inside "$@"
fi
shift
psql -qX -v ON_ERROR_STOP=1 -f scripts/psql_kms.sql >/dev/null
status=0
export PYTHONDONTWRITEBYTECODE=1
if [ $# -eq 0 ]; then
    python3 scripts/docs/reference.py || status=1
    python3 scripts/docs/names.py || status=1
    python3 scripts/docs/capacity.py || status=1
    python3 scripts/docs/files.py || status=1
fi
python3 scripts/docs/examples.py "$@" || status=1
exit $status
