#!/bin/bash
# Runs a command on a throw-away PostgreSQL server that has a KMS emulator beside it: with-kms.sh COMMAND [ARGUMENT...]
#
# As with-cluster.sh, and KMS_CALLS is the file in which the emulator counts its calls. Its keys: alias/patients, alias/people,
# alias/accounts and alias/new in eu-central-1, account 111122223333. envelope_pg.kms_endpoint_url and kms_region are set.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -gt 0 ] || die "usage: with-kms.sh COMMAND [ARGUMENT...]"
python=$target_dir/venv/bin/python3
[ -x "$target_dir/venv/bin/moto_server" ] || die "missing: the KMS emulator; 'scripts/setup.sh kms' installs it"

kms_dir=$(mktemp -d /tmp/envelope_kms.XXXXXX)
emulator_pid=
# shellcheck disable=SC2317  # called by the trap
stop() {
    if [ -n "$emulator_pid" ]; then
        kill "$emulator_pid" 2>/dev/null || true
        wait "$emulator_pid" 2>/dev/null || true
    fi
    rm -rf "$kms_dir"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM

# A session of its own, so that Ctrl-C in psql does not reach it; and it ends if this script is killed.
setsid setpriv --pdeathsig TERM "$python" "$root_dir/scripts/kms_emulator.py" "$kms_dir" >"$kms_dir/log" 2>&1 </dev/null &
emulator_pid=$!
for _ in $(seq 600); do
    [ ! -f "$kms_dir/url" ] || break
    kill -0 "$emulator_pid" 2>/dev/null || break
    sleep 0.1
done
[ -f "$kms_dir/url" ] || die "the KMS emulator did not start: $(tail -n 20 "$kms_dir/log")"

# From here on Ctrl-C is for the command.
trap : INT
# The emulator looks at no signature; the server must not find credentials of anybody.
for name in "${!AWS_@}"; do unset "$name"; done
export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=not-a-secret AWS_EC2_METADATA_DISABLED=true
# shellcheck disable=SC2089  # the quotes are postgresql.conf's
EXTRA_CONF="${EXTRA_CONF:-}
envelope_pg.kms_endpoint_url = '$(cat "$kms_dir/url")'
envelope_pg.kms_region = 'eu-central-1'"
# shellcheck disable=SC2090
export EXTRA_CONF KMS_CALLS=$kms_dir/calls
"$root_dir/scripts/with-cluster.sh" "$@"
