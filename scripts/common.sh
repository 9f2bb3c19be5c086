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
    pg_config=$(find_pg_config) || exit 1
    [ -n "$pg_config" ] || die "missing: PostgreSQL 14 to 18 with its server headers; run 'make setup' or set PG_CONFIG"
    pg_major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
}

# True if bindgen will find a libclang to read PostgreSQL's headers with.
has_libclang() {
    local directory
    for directory in "${LIBCLANG_PATH:-}" /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/local/lib; do
        if compgen -G "$directory/libclang*.so*" >/dev/null; then return; fi
    done
    # A libclang elsewhere: its own program knows where.
    command -v llvm-config >/dev/null && compgen -G "$(llvm-config --libdir)/libclang*.so*" >/dev/null
}

# Prints what building needs and this machine has not, a line each: NAME|DEBIAN PACKAGES. The first argument "test" or "bench"
# adds what these need.
missing() {
    local pg_config
    command -v cargo >/dev/null || echo "a Rust toolchain, 1.95 or newer (rustup.rs has it)|"
    command -v cc >/dev/null || echo "a C compiler|gcc libc6-dev"
    pg_config=$(find_pg_config) || exit 1
    if [ -z "$pg_config" ]; then
        echo "PostgreSQL 14 to 18 with its server headers|postgresql"
    elif ! has_libclang; then
        echo "libclang|libclang-dev"
    fi
    case ${1:-build} in test | bench) command -v valgrind >/dev/null || echo "valgrind|valgrind" ;; esac
    # pgcrypto is what we are measured against. Debian and Ubuntu have it in the server's own package.
    if [ "${1:-}" = bench ] && [ -n "$pg_config" ] && [ ! -f "$("$pg_config" --sharedir)/extension/pgcrypto.control" ]; then
        echo "pgcrypto|postgresql-contrib"
    fi
    case ${1:-build} in test | clients)
        command -v pgbouncer >/dev/null || echo "PgBouncer|pgbouncer"
        if command -v javac >/dev/null && [ ! -f /usr/share/java/postgresql.jar ]; then
            echo "PostgreSQL's JDBC driver|libpostgresql-jdbc-java"
        fi
        if command -v javac >/dev/null && [ ! -f /usr/share/java/hibernate-core.jar ]; then
            echo "Hibernate|libhibernate3-java libjavassist-java libslf4j-java"
        fi
        ;;
    esac
    case ${1:-build} in test | kms | clients)
        if [ ! -x "$target_dir/venv/bin/python3" ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
            echo "Python's venv|python3-venv"
        fi
        ;;
    esac
}

# Stops with one error if building (or what the argument says, as for missing) needs something that is not here.
need_tools() {
    local missing
    missing=$(missing "$@") || exit 1
    if [ -n "$missing" ]; then
        missing=$(cut -d '|' -f 1 <<<"$missing" | paste -sd ';' | sed 's/;/, and /g')
        die "missing: $missing; 'make setup' installs what Debian and Ubuntu have, and PG_CONFIG=... names a PostgreSQL of your own"
    fi
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
