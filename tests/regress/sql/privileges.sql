-- Who may do what.
\set SHOW_CONTEXT never
SELECT env_local_create_key('privileges');
SELECT env_local_create_key('forbidden');
SELECT env_encrypt('secret', 'local:privileges') AS value \gset
SELECT env_encrypt('secret', 'local:forbidden') AS forbidden \gset

SELECT rolname, rolcanlogin, rolsuper FROM pg_roles WHERE rolname LIKE 'envelope\_%' ORDER BY rolname;

CREATE ROLE regress_nobody;
CREATE ROLE regress_writer IN ROLE envelope_encrypt;
CREATE ROLE regress_reader LOGIN IN ROLE envelope_decrypt;

-- Nobody in particular: headers, and nothing that touches a key.
SET ROLE regress_nobody;
SELECT env_is_envelope(:'value'), env_key_id(:'value');
SELECT env_encrypt('x'::text, 'local:privileges');
\echo :SQLSTATE
SELECT env_encrypt('\x00'::bytea, 'local:privileges', '{}');
\echo :SQLSTATE
SELECT env_encrypt('1'::jsonb, 'local:privileges', '{}', 'row 1');
\echo :SQLSTATE
SELECT env_encrypt_generated('x'::text, 'local:privileges');
\echo :SQLSTATE
SELECT env_decrypt(:'value');
\echo :SQLSTATE
SELECT env_decrypt(:'value', 'row 1');
\echo :SQLSTATE
SELECT env_decrypt_bytea(:'value');
\echo :SQLSTATE
SELECT env_decrypt_jsonb(:'value');
\echo :SQLSTATE
SELECT env_cache_flush();
\echo :SQLSTATE
SELECT env_local_create_key('mine');
\echo :SQLSTATE
SELECT env_local_rotate_key('privileges');
\echo :SQLSTATE

-- A writer encrypts, and cannot read back.
SET ROLE regress_writer;
SELECT env_is_envelope(env_encrypt('x', 'local:privileges'));
SELECT env_decrypt(:'value');
\echo :SQLSTATE

-- A reader decrypts, and cannot write.
SET ROLE regress_reader;
SELECT env_decrypt(:'value');
SELECT env_encrypt('x', 'local:privileges');
\echo :SQLSTATE

-- Neither can move the limits.
SET envelope_pg.allowed_keys = '';
\echo :SQLSTATE
SET envelope_pg.cache_ttl = '1d';
\echo :SQLSTATE
SET envelope_pg.cache_entries = 10;
\echo :SQLSTATE
SET envelope_pg.dek_max_age = '1d';
\echo :SQLSTATE
SET envelope_pg.dek_max_uses = 10;
\echo :SQLSTATE
SET envelope_pg.dek_max_bytes = 10;
\echo :SQLSTATE
SET envelope_pg.kms_endpoint_url = 'http://127.0.0.1:1';
\echo :SQLSTATE
RESET ROLE;

-- allowed_keys, for one role, from its next session on.
ALTER ROLE regress_reader SET envelope_pg.allowed_keys = 'local:privileges, local:another';
\c - regress_reader
SHOW envelope_pg.allowed_keys;
SELECT env_decrypt(:'value');
SELECT env_decrypt(:'forbidden');
\echo :SQLSTATE
RESET envelope_pg.allowed_keys;
\echo :SQLSTATE
-- Nor can the role get around it before the library is loaded in its session. (With the library preloaded, the SET fails.)
\c - regress_reader
SET client_min_messages = error;
DO $$
BEGIN
    SET envelope_pg.allowed_keys = '';
EXCEPTION
    WHEN insufficient_privilege THEN NULL;
END
$$;
SELECT env_decrypt(:'forbidden');
\echo :SQLSTATE
SHOW envelope_pg.allowed_keys;

\c - postgres
-- A warm entry does not get around allowed_keys.
SELECT env_decrypt(:'forbidden');
SET envelope_pg.allowed_keys = 'local:privileges';
SELECT env_decrypt(:'forbidden');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:forbidden');
\echo :SQLSTATE
SELECT env_decrypt(:'value');
-- A list that is not a list.
SET envelope_pg.allowed_keys = 'local:privileges,,';
\echo :SQLSTATE
SET envelope_pg.allowed_keys = 'no such form';
\echo :SQLSTATE
RESET envelope_pg.allowed_keys;

DROP ROLE regress_nobody, regress_writer, regress_reader;
