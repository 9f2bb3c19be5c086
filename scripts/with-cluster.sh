#!/bin/bash
# Runs a command with a throw-away PostgreSQL server, which is gone afterwards: with-cluster.sh COMMAND [ARGUMENT...]
#
# The server listens on a Unix socket only, in a directory that only its user can enter. The command finds it through
# PGHOST, PGPORT, PGUSER (a superuser) and PGDATABASE. EXTRA_CONF can hold further lines of postgresql.conf, SERVER_WRAPPER
# what is to be said before the server's own command.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -gt 0 ] || die "usage: with-cluster.sh COMMAND [ARGUMENT...]"
need_postgres
bin_dir=$("$pg_config" --bindir)

# /tmp and not TMPDIR: the path of a Unix socket must stay under 108 bytes.
dir=$(mktemp -d /tmp/envelope_pg.XXXXXX)
server_pid=

# shellcheck disable=SC2317  # called by the trap
stop() {
    local waited=0
    trap '' INT TERM HUP
    if [ -n "$server_pid" ]; then
        # Fast shutdown, and the hard way if that takes more than 10 s.
        kill -INT "$server_pid" 2>/dev/null || true
        while kill -0 "$server_pid" 2>/dev/null && [ "$waited" -lt 100 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
        if kill -0 "$server_pid" 2>/dev/null; then kill -QUIT "$server_pid"; fi
        wait "$server_pid" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

give_to_server_user "$dir"

fail() {
    echo "error: $1; the end of the server's log:" >&2
    tail -n 30 "$dir/log" >&2
    exit 1
}

# The server must not see the caller's connection settings.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGSERVICE PGPASSWORD PGOPTIONS PGSSLMODE PGDATA
cd "$dir"
: >log
"${as_server[@]}" mkdir -m 700 keyring
"${as_server[@]}" "$bin_dir/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync \
    >>log 2>&1 || fail "initdb failed"
"${as_server[@]}" tee -a data/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
port = 5432
unix_socket_directories = '$dir'
unix_socket_permissions = 0700
fsync = off
synchronous_commit = off
full_page_writes = off
envelope_pg.local_keyring = '$dir/keyring/keys.json'
${EXTRA_CONF:-}
CONF

# A session of its own, so that Ctrl-C in psql does not reach the server; and it stops if this script is killed.
read -ra wrapper <<<"${SERVER_WRAPPER:-}"
setsid "${as_server[@]}" setpriv --pdeathsig INT "${wrapper[@]}" "$bin_dir/postgres" -D "$dir/data" >>log 2>&1 </dev/null &
server_pid=$!

export PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=postgres PATH="$bin_dir:$PATH"
tries=0
until pg_isready -q; do
    kill -0 "$server_pid" 2>/dev/null || fail "the server did not start"
    [ "$tries" -lt 600 ] || fail "the server did not answer within a minute"
    tries=$((tries + 1))
    sleep 0.1
done

# From here on Ctrl-C is for the command.
trap : INT
cd "$OLDPWD"
status=0
"$@" || status=$?
if grep -E 'was terminated by signal|PANIC:' "$dir/log" >&2; then
    echo "error: the server crashed; the end of its log:" >&2
    tail -n 30 "$dir/log" >&2
    [ $status -ne 0 ] || status=1
fi
exit $status
