-- The key file of the local provider: each way it can be wrong has an error of its own.
\set SHOW_CONTEXT never
SELECT env_local_create_key('keyring');
SELECT env_encrypt('secret', 'local:keyring') AS value \gset
\! stat -c %a "$PGHOST/keyring/keys.json"

-- Runs an expression and shows its error, with KEYRING for the path of the file, which differs from run to run.
CREATE FUNCTION try(expression text) RETURNS TABLE (part text, what text) LANGUAGE plpgsql AS $$
DECLARE
    result text; message text; detail text; hint text; keyring text;
BEGIN
    EXECUTE 'SELECT ' || expression INTO result;
    RETURN QUERY VALUES ('ok', result);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    keyring := current_setting('envelope_pg.local_keyring');
    RETURN QUERY VALUES (sqlstate, message), ('detail', replace(detail, keyring, 'KEYRING')), ('hint', hint);
END
$$;
SELECT format('env_decrypt(%L)', :'value') AS decrypt \gset
\pset footer off

-- the name is taken; no name for a key; no such key to rotate
SELECT * FROM try($$ env_local_create_key('keyring') $$);
SELECT * FROM try($$ env_local_create_key('') $$);
SELECT * FROM try($$ env_local_create_key('a/b') $$);
SELECT * FROM try($$ env_local_create_key(repeat('a', 65)) $$);
SELECT * FROM try($$ env_local_create_key(repeat('a', 64)) $$);
SELECT * FROM try($$ env_local_rotate_key('nobody') $$);

-- others can read the file
\! chmod 644 "$PGHOST/keyring/keys.json"
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT * FROM try(:'decrypt');
SELECT * FROM try($$ env_encrypt('x', 'local:keyring') $$);
SELECT * FROM try($$ env_local_create_key('another') $$);
\! chmod 600 "$PGHOST/keyring/keys.json"
SELECT * FROM try(:'decrypt');

-- the file is corrupt; it is not overwritten
\! cp -p "$PGHOST/keyring/keys.json" "$PGHOST/keyring/saved" && echo '{' > "$PGHOST/keyring/keys.json"
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT * FROM try(:'decrypt');
SELECT * FROM try($$ env_local_create_key('another') $$);
\! cat "$PGHOST/keyring/keys.json"; mv "$PGHOST/keyring/saved" "$PGHOST/keyring/keys.json"
SELECT * FROM try(:'decrypt');

-- the file is not there
\! mv "$PGHOST/keyring/keys.json" "$PGHOST/keyring/saved"
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT * FROM try(:'decrypt');

-- another file, with a key of the same name: the value belongs to the first one
SELECT env_local_create_key('keyring');
SELECT * FROM try(:'decrypt');
\! mv "$PGHOST/keyring/saved" "$PGHOST/keyring/keys.json"
SELECT * FROM try(:'decrypt');

-- the provider is off
ALTER SYSTEM SET envelope_pg.local_keyring = '';
SELECT pg_reload_conf();
SELECT env_cache_flush(true) > 0 AS flushed;
\c
SELECT * FROM try($$ env_encrypt('x', 'local:keyring') $$);
SELECT * FROM try(:'decrypt');
SELECT * FROM try($$ env_local_create_key('another') $$);
ALTER SYSTEM RESET envelope_pg.local_keyring;
SELECT pg_reload_conf();
\c
SELECT * FROM try(:'decrypt');

-- No statement can set it, not even a superuser's.
SET envelope_pg.local_keyring = '/tmp/other.json';
\echo :SQLSTATE
