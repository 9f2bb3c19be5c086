#!/bin/bash
# Opens psql on a throw-away server that has the extension and a key: psql.sh local|kms
set -euo pipefail
scripts=$(dirname "$0")
case ${1:-} in
    local) exec "$scripts/with-cluster.sh" "$0" inside-local ;;
    kms) exec "$scripts/with-kms.sh" "$0" inside-kms ;;
    inside-local)
        psql -qX -v ON_ERROR_STOP=1 <<'SQL' >/dev/null
CREATE EXTENSION envelope_pg;
SELECT env_local_create_key('demo');
SQL
        cat <<'HINT'
A throw-away server with envelope_pg and the key local:demo. It is gone when you leave with \q. Try:

    SELECT env_decrypt(env_encrypt('hello', 'local:demo'));
    SELECT * FROM env_inspect(env_encrypt('hello', 'local:demo')) \gx

HINT
        ;;
    inside-kms)
        psql -qX -v ON_ERROR_STOP=1 -f "$scripts/psql_kms.sql" >/dev/null
        cat <<'HINT'
A throw-away server with envelope_pg, and a KMS emulator in the place of AWS. Both are gone when you leave with \q.

    keys      alias/patients, alias/people, alias/accounts, alias/new (eu-central-1), and local:dev
    roles     app_writer may encrypt, support may decrypt. As one of them: \c - support
    tables    patient, with three rows. Your own CREATE TABLE patient goes before it

    SELECT id, env_decrypt(diagnosis) FROM patient;
    INSERT INTO patient (id, diagnosis) VALUES (4, env_encrypt('sciatica', 'alias/patients'));
    SELECT * FROM env_kms_calls();
    \! cat $KMS_CALLS

The last one shows the calls as the endpoint counts them.

HINT
        ;;
    *)
        echo "usage: psql.sh local|kms" >&2
        exit 2
        ;;
esac
exec psql -q
