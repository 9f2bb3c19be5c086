#!/bin/bash
# Makes the Debian package postgresql-NN-envelope-pg for the chosen PostgreSQL, in target/deb. Needs dpkg-deb only.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$0")/common.sh"
need_postgres
command -v dpkg-deb >/dev/null || die "missing: dpkg-deb"
library_dir=$("$pg_config" --pkglibdir)
[ "$library_dir" = "/usr/lib/postgresql/$pg_major/lib" ] ||
    die "a Debian package is for Debian's PostgreSQL, and $pg_config has its libraries in $library_dir"
cd "$root_dir"
version=$(sed -nE "s/^default_version = '(.*)'/\1/p" envelope_pg.control)
name=postgresql-$pg_major-envelope-pg
architecture=$(dpkg --print-architecture)
stage=$target_dir/deb/$name
rm -rf "$stage"
mkdir -p "$stage/DEBIAN" "$stage/usr/share/doc/$name"
DESTDIR=$stage scripts/install.sh >/dev/null

# The newest symbols of the C library that it uses.
glibc=$(objdump -T "$stage$library_dir/envelope_pg.so" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
cat >"$stage/DEBIAN/control" <<CONTROL
Package: $name
Version: $version-1
Architecture: $architecture
Section: database
Priority: optional
Maintainer: The envelope_pg developers <envelope-pg@localhost>
Depends: postgresql-$pg_major, libc6 (>= $glibc), libgcc-s1
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f 1)
Description: column envelope encryption with AWS KMS for PostgreSQL $pg_major
 env_encrypt and env_decrypt encrypt column values inside the server. A key in
 AWS KMS wraps data keys, and each value carries the data key that it was
 encrypted with, wrapped.
CONTROL
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
    printf 'Upstream-Name: envelope_pg\n\nFiles: *\nCopyright: the envelope_pg developers\nLicense: MIT or Apache-2.0\n'
    printf '\nLicense: MIT\n'
    sed 's/^$/./; s/^/ /' LICENSE-MIT
    printf '\nLicense: Apache-2.0\n On Debian the text is in /usr/share/common-licenses/Apache-2.0.\n'
} >"$stage/usr/share/doc/$name/copyright"
gzip -9n <CHANGELOG.md >"$stage/usr/share/doc/$name/changelog.gz"
find "$stage" -type d -exec chmod 755 {} +
package=$target_dir/deb/${name}_$version-1_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >/dev/null
echo "made $package ($(($(stat -c %s "$package") / 1024)) kB)"
