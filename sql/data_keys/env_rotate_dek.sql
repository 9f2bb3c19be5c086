-- The current data keys, of all sessions.
CREATE OR REPLACE FUNCTION @extschema@.env_rotate_dek(key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rotate_dek';

CREATE OR REPLACE FUNCTION @extschema@.env_rotate_dek(key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rotate_dek';

REVOKE ALL ON FUNCTION @extschema@.env_rotate_dek(text), @extschema@.env_rotate_dek(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_rotate_dek(text),
    @extschema@.env_rotate_dek(text, jsonb)
    TO envelope_admin, envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rotate_dek(text) IS
    'have new current data keys made for a KMS key, for all sessions, each at the next use of its encryption context; returns NULL';
COMMENT ON FUNCTION @extschema@.env_rotate_dek(text, jsonb) IS
    'make a new current data key for a KMS key and an encryption context now, for all sessions; returns its dek id';
