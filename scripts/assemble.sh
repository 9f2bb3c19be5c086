#!/bin/bash
# Assembles the scripts that CREATE EXTENSION and ALTER EXTENSION ... UPDATE run, from the files under sql/, into target/sql.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
cd "$root_dir/sql"
version=$(sed -nE "s/^default_version = '(.*)'/\1/p" "$root_dir/envelope_pg.control")
out_dir=$target_dir/sql

# The first lines of a script. What the statements in it name without a schema is PostgreSQL's own, whatever others have
# created in the schema of the extension; psql is told not to run it.
opening() {
    printf '%s\n' "-- envelope_pg $1. Assembled by scripts/assemble.sh." \
        "\\echo Use \"$2\" to load this file. \\quit" "SET LOCAL search_path = pg_catalog, pg_temp;"
}

# Each listed file under its name.
files() {
    local file
    for file in "$@"; do
        printf '\n-- sql/%s\n\n' "$file"
        cat "$file"
    done
}

mapfile -t all < <(sed -nE 's/^(new )?([a-z].*)$/\2/p' install.list)
mapfile -t kept < <(sed -nE '/^new /d; s/^([a-z].*)$/\1/p' install.list)
unlisted=$(comm -3 <(printf '%s\n' "${all[@]}" | sort) \
    <(find . -name '*.sql' -not -path './released/*' -not -path './upgrade/*' | sed 's|^\./||' | sort))
[ -z "$unlisted" ] || die "sql/install.list and the files under sql/ differ:" $unlisted

rm -rf "$out_dir"
mkdir -p "$out_dir"
cp released/envelope_pg--*.sql "$out_dir"
{
    opening "$version" "CREATE EXTENSION envelope_pg"
    files "${all[@]}"
} >"$out_dir/envelope_pg--$version.sql"
for upgrade in upgrade/*.sql; do
    name=${upgrade##*/}
    {
        opening "${name%.sql}" "ALTER EXTENSION envelope_pg UPDATE"
        files "$upgrade"
        # Only the last step ends where the files are; those of released versions are frozen with all they ran.
        case $name in *--"$version.sql") files "${kept[@]}" ;; esac
    } >"$out_dir/envelope_pg--$name"
done
