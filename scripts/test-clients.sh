#!/bin/bash
# Runs the examples of examples/clients, each in a database of its own with tables.sql: test-clients.sh [NAME...], NAME being a file
# without its extension. What is not on this machine (Node, Java, PgBouncer) is skipped, with a line that says so.
#
# The clients' libraries, in the versions that examples/clients pins, go into target/clients.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir"
clients=$root_dir/examples/clients
out=$target_dir/clients
jdbc=/usr/share/java/postgresql.jar
# Debian's Hibernate, and what it needs.
hibernate=$(printf '/usr/share/java/%s.jar:' hibernate-core hibernate-commons-annotations geronimo-jpa_2.0_spec geronimo-jta-1.2-spec \
    antlr commons-collections3 dom4j javassist slf4j-api slf4j-nop)

prepare_python() {
    [ -x "$out/venv/bin/python3" ] || python3 -m venv "$out/venv"
    if ! cmp -s "$clients/python/requirements.txt" "$out/venv/requirements.txt"; then
        "$out/venv/bin/python3" -m pip install --quiet --disable-pip-version-check -r "$clients/python/requirements.txt"
        cp "$clients/python/requirements.txt" "$out/venv/"
    fi
}

prepare_node() {
    mkdir -p "$out/node"
    cp "$clients"/node/* "$out/node/"
    cmp -s "$out/node/package-lock.json" "$out/node/node_modules/.installed" ||
        (cd "$out/node" && npm ci --silent --no-audit --no-fund && cp package-lock.json node_modules/.installed)
}

prepare_java() {
    mkdir -p "$out/java"
    javac -d "$out/java" "$clients/java/Jdbc.java"
    if [ -f "${hibernate%%:*}" ]; then
        javac -d "$out/java" -cp "$hibernate" "$clients/java/WithHibernate.java"
    else
        echo "clients: Hibernate is skipped: no ${hibernate%%:*} (Debian: libhibernate3-java)"
    fi
}

prepare_rust() {
    # No network where everything is there.
    CARGO_TARGET_DIR=$out/rust cargo build --quiet --locked --manifest-path "$clients/rust/Cargo.toml"
}

if [ "${1:-}" != inside ]; then
    mkdir -p "$out"
    export SKIPPED="" FAILED=""
    for language in python:python3 node:npm java:javac rust:cargo; do
        if ! command -v "${language#*:}" >/dev/null; then
            SKIPPED+=" ${language%:*}"
            echo "clients: ${language%:*} is skipped: no ${language#*:} on this machine"
        elif [ "$language" = java:javac ] && [ ! -f $jdbc ]; then
            SKIPPED+=" java"
            echo "clients: java is skipped: no $jdbc (Debian: libpostgresql-jdbc-java)"
        elif ! "prepare_${language%:*}"; then
            FAILED+=" ${language%:*}"
        fi
    done
    exec scripts/with-kms.sh "$0" inside "$@"
fi
shift
chosen=" $* "
passed=0 failed=0
psql -qX -v ON_ERROR_STOP=1 -f "$clients/tables.sql" >/dev/null

# Sets language and command of an example.
of_example() {
    case $1 in
        with_psycopg* | with_asyncpg | with_sqlalchemy | with_django)
            language=python command=("$out/venv/bin/python3" "$clients/python/$1.py")
            ;;
        with_pg | with_postgres_js | with_drizzle | with_knex) language=node command=(node "$out/node/$1.js") ;;
        with_tokio_postgres | with_sqlx) language=rust command=("$out/rust/debug/$1") ;;
        with_jdbc) language=java command=(java -cp "$out/java:$jdbc" Jdbc) ;;
        # Hibernate of that age makes its proxies by a method that Java has closed since.
        with_hibernate)
            language=java command=(java --add-opens java.base/java.lang=ALL-UNNAMED -cp "$out/java:$hibernate$jdbc" WithHibernate)
            ;;
    esac
}

# Runs an example in a database of its own: example NAME [VARIABLE=VALUE...]
example() {
    local name=$1 started=$SECONDS language command database
    if [ "$name" = with_hibernate ] && [ ! -f "${hibernate%%:*}" ]; then return; fi
    of_example "$name"
    shift
    if [[ " $SKIPPED " = *" $language "* || ($chosen != "  " && $chosen != *" $name "*) ]]; then return; fi
    database=$name${1:+_pooled}
    echo "-- $database"
    if [[ " $FAILED " != *" $language "* ]] &&
        psql -qX -d template1 -c "CREATE DATABASE $database TEMPLATE postgres" &&
        env PGDATABASE="$database" "$@" timeout 120 "${command[@]}" >"$out/$database.log" 2>&1; then
        echo "ok, $((SECONDS - started)) s"
        passed=$((passed + 1))
    else
        cat "$out/$database.log" 2>/dev/null || true
        echo "FAILED"
        failed=$((failed + 1))
    fi
}

for name in with_psycopg3 with_psycopg2 with_asyncpg with_sqlalchemy with_django with_pg with_postgres_js with_drizzle with_knex \
    with_tokio_postgres with_sqlx; do
    example $name
done

# Behind PgBouncer in transaction mode; JDBC and Hibernate, too, which know no Unix sockets.
if command -v pgbouncer >/dev/null; then
    pool_dir=$(mktemp -d /tmp/envelope_pool.XXXXXX)
    give_to_server_user "$pool_dir"
    pool_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "\"postgres\" \"$password\"" >"$pool_dir/users"
    cat >"$pool_dir/pgbouncer.ini" <<CONF
[databases]
* = host=$PGHOST port=$PGPORT
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pool_port
unix_socket_dir = $pool_dir
auth_type = md5
auth_file = $pool_dir/users
pool_mode = transaction
# JDBC sends it at the start.
ignore_startup_parameters = extra_float_digits
CONF
    setsid "${as_server[@]}" setpriv --pdeathsig TERM "$(command -v pgbouncer)" -q "$pool_dir/pgbouncer.ini" >"$out/pgbouncer.log" 2>&1 </dev/null &
    pool_pid=$!
    for _ in $(seq 100); do
        [ ! -S "$pool_dir/.s.PGSQL.$pool_port" ] || break
        sleep 0.1
    done
    for name in with_psycopg3 with_asyncpg with_pg with_postgres_js with_jdbc with_hibernate; do
        example $name PGHOST="$pool_dir" PGPORT="$pool_port" PGPASSWORD="$password" PGBOUNCER=1
    done
    kill "$pool_pid"
    wait "$pool_pid" 2>/dev/null || true
    rm -rf "$pool_dir"
else
    echo "clients: PgBouncer, JDBC and Hibernate are skipped: no pgbouncer on this machine"
fi
echo "clients: $passed passed, $failed failed"
[ "$failed" = 0 ]
