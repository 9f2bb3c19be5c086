-- The local provider's key file.
CREATE OR REPLACE FUNCTION @extschema@.env_local_create_key(name text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_local_create_key';

-- Superusers only, unless one grants it on: it writes a file of the server.
REVOKE ALL ON FUNCTION @extschema@.env_local_create_key(text) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.env_local_create_key(text) IS
    'create a key of the local provider in the file envelope_pg.local_keyring; returns its key id';
