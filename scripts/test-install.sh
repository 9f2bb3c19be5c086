#!/bin/bash
# Installs into an empty root and uninstalls again: nothing may be left. PostgreSQL 18 and later also run the extension from the files of
# an extension's image, as CloudNativePG mounts it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
cd "$root_dir"
DESTDIR=$(mktemp -d /tmp/envelope_install.XXXXXX)
export DESTDIR
trap 'rm -rf "$DESTDIR"' EXIT
passed=0
scripts/install.sh >/dev/null
[ "$(find "$DESTDIR" -name 'envelope_pg*' -type f | wc -l)" -ge 4 ] || die "these files are installed only: $(find "$DESTDIR" -type f)"

if [ "$pg_major" -ge 18 ]; then
    # The layout that packaging/docker/Dockerfile gives it; its server finds it in no other place.
    image=$DESTDIR/image
    mkdir -p "$image/lib" "$image/share"
    cp "$DESTDIR$("$pg_config" --pkglibdir)/envelope_pg.so" "$image/lib/"
    cp -r "$DESTDIR$("$pg_config" --sharedir)/extension" "$image/share/extension"
    chmod -R a+rX "$DESTDIR"
    EXTRA_CONF="extension_control_path = '$image/share:\$system'
dynamic_library_path = '$image/lib:\$libdir'" scripts/with-cluster.sh psql -XAtq -v ON_ERROR_STOP=1 \
        -c "CREATE EXTENSION envelope_pg" -c "SELECT env_local_create_key('dev')" \
        -c "SELECT env_decrypt(env_encrypt('it works', 'local:dev')), pg_read_file('/proc/' || pg_backend_pid() || '/maps') LIKE '%$image/lib/envelope_pg.so%'" \
        >"$DESTDIR/answer"
    [ "$(tail -n 1 "$DESTDIR/answer")" = "it works|t" ] || die "from the files of an image: $(cat "$DESTDIR/answer")"
    rm -r "$image" "$DESTDIR/answer"
    passed=1
fi

scripts/install.sh uninstall >/dev/null
left=$(find "$DESTDIR" -type f)
[ -z "$left" ] || die "uninstalling leaves $left"
echo "install: $((passed + 1)) passed, 0 failed"
