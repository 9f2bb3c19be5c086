-- Named keys: each is a foreign server of this wrapper (docs/design/NAMED_KEYS.md). It has no handler, so its servers have no
-- tables. Who has USAGE on the wrapper administers keys.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwname OPERATOR(pg_catalog.=) 'envelope_pg') THEN
        CREATE FOREIGN DATA WRAPPER envelope_pg NO HANDLER VALIDATOR envelope_internal.named_key_validator;
    END IF;
END
$$;

COMMENT ON FOREIGN DATA WRAPPER envelope_pg IS
    'named keys: CREATE SERVER name FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id ''...''), GRANT USAGE ON FOREIGN SERVER name TO role';

GRANT USAGE ON FOREIGN DATA WRAPPER envelope_pg TO envelope_admin;
