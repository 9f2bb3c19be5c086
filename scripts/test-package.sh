#!/bin/bash
# Installs the Debian package into a clean Debian root and uses it there: test-package.sh [ROOT]
#
# Needs root's rights, debootstrap and the distribution's packages. Without ROOT it makes one and removes it afterwards; with it
# ROOT is a directory that debootstrap has made, which saves a minute.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
[ "$(id -u)" = 0 ] || die "only root can change its root directory"
cd "$root_dir"
scripts/package.sh
package=$(find "$target_dir/deb" -maxdepth 1 -name "postgresql-$pg_major-envelope-pg_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
root=${1:-}
if [ -z "$root" ]; then
    command -v debootstrap >/dev/null || die "missing: debootstrap; apt-get install debootstrap"
    root=$(mktemp -d /tmp/envelope_root.XXXXXX)
    # Its server runs as postgres.
    chmod 755 "$root"
    trap 'umount "$root/proc" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # The mirror that this machine uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)
    debootstrap --variant=minbase "$release" "$root" "$mirror" >/dev/null
else
    trap 'umount "$root/proc" 2>/dev/null || true' EXIT
fi
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }

cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/tmp/package.deb"
inside mkdir -p /etc/postgresql-common/createcluster.d
inside sh -c 'echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/test.conf'
inside sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends /tmp/package.deb' >"$target_dir/deb/install.log" 2>&1 ||
    { tail -n 20 "$target_dir/deb/install.log" >&2; die "apt-get cannot install the package"; }
inside su postgres -c "set -e
    cd /tmp; bin=/usr/lib/postgresql/$pg_major/bin; rm -rf /tmp/data
    \$bin/initdb -D /tmp/data -A trust --no-sync >/dev/null
    echo \"envelope_pg.local_keyring = '/tmp/data/keys.json'\" >>/tmp/data/postgresql.conf
    \$bin/pg_ctl -D /tmp/data -o '-k /tmp -c listen_addresses=' -w -l /tmp/data/log start >/dev/null
    \$bin/psql -h /tmp -XAtq -v ON_ERROR_STOP=1 postgres -c 'CREATE EXTENSION envelope_pg' \
        -c \"SELECT env_local_create_key('dev')\" -c \"SELECT env_decrypt(env_encrypt('it works', 'local:dev'))\"
    \$bin/pg_ctl -D /tmp/data -m fast stop >/dev/null" | tee "$target_dir/deb/answer"
[ "$(tail -n 1 "$target_dir/deb/answer")" = "it works" ] || die "the package does not work"
inside dpkg --purge "postgresql-$pg_major-envelope-pg" >/dev/null
left=$(find "$root/usr" -name '*envelope_pg*' -o -name '*envelope-pg*')
[ -z "$left" ] || die "purging the package leaves $left"
echo "packages: 1 passed, 0 failed"
