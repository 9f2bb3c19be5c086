CREATE OR REPLACE FUNCTION @extschema@.env_local_rotate_key(name text) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_local_rotate_key';

-- Superusers only, unless one grants it on: it writes a file of the server.
REVOKE ALL ON FUNCTION @extschema@.env_local_rotate_key(text) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.env_local_rotate_key(text) IS
    'add a version to a key of the local provider; older values still open; returns the version';
