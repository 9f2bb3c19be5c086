#!/bin/bash
# Opens psql on a throw-away server that has the extension and a local key.
set -euo pipefail
if [ "${1:-}" != inside ]; then
    exec "$(dirname "$0")/with-cluster.sh" "$0" inside
fi
psql -qX -v ON_ERROR_STOP=1 <<'SQL' >/dev/null
CREATE EXTENSION envelope_pg;
SELECT env_local_create_key('demo');
SQL
cat <<'HINT'
A throw-away server with envelope_pg and the key local:demo. It is gone when you leave with \q. Try:

    SELECT env_decrypt(env_encrypt('hello', 'local:demo'));
    SELECT * FROM env_inspect(env_encrypt('hello', 'local:demo')) \gx

HINT
exec psql -q
