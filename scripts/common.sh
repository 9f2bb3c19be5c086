# Shared by the other scripts: where PostgreSQL is, and how to become root or the server's user.
# shellcheck shell=bash disable=SC2034  # set for the scripts that read this file

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target_dir=${CARGO_TARGET_DIR:-$root_dir/target}

die() {
    echo "error: $*" >&2
    exit 1
}

# True if this pg_config belongs to a PostgreSQL with a server and its headers.
has_server_headers() {
    [ -x "$1" ] && [ -f "$("$1" --includedir-server)/postgres.h" ] && [ -x "$("$1" --bindir)/postgres" ]
}

# Prints the pg_config to build with: $PG_CONFIG, else Debian's newest, else the one on PATH. Nothing if there is none.
find_pg_config() {
    local candidate
    if [ -n "${PG_CONFIG:-}" ]; then
        candidate=$(command -v "$PG_CONFIG") || die "PG_CONFIG=$PG_CONFIG does not exist"
        has_server_headers "$candidate" || die "PG_CONFIG=$PG_CONFIG has no server or no server headers"
        echo "$candidate"
        return
    fi
    for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin/pg_config | sort -rV) "$(command -v pg_config || true)"; do
        if has_server_headers "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

# Sets pg_config and pg_major, or stops.
need_postgres() {
    pg_config=$(find_pg_config)
    [ -n "$pg_config" ] || die "no PostgreSQL with server headers found; run 'make setup' or set PG_CONFIG"
    pg_major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
}

# Gives a directory to the user that servers run as, since PostgreSQL refuses to run as root, and sets as_server to what goes in
# front of a command to run it as that user.
give_to_server_user() {
    local server_user
    as_server=()
    if [ "$(id -u)" = 0 ]; then
        server_user=$(id -un postgres 2>/dev/null || echo nobody)
        chown "$server_user" "$1"
        as_server=(setpriv --reuid="$server_user" --regid="$(id -gn "$server_user")" --init-groups env HOME="$1")
    fi
}

# Runs a command with root's rights.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}
