CREATE OR REPLACE FUNCTION @extschema@.env_decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

REVOKE ALL ON FUNCTION @extschema@.env_decrypt_bytea(bytea), @extschema@.env_decrypt_bytea(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_decrypt_bytea(bytea),
    @extschema@.env_decrypt_bytea(bytea, text)
    TO envelope_decrypt;

COMMENT ON FUNCTION @extschema@.env_decrypt_bytea(bytea) IS
    'decrypt a value that was encrypted from bytea';
COMMENT ON FUNCTION @extschema@.env_decrypt_bytea(bytea, text) IS
    'decrypt a value that was encrypted from bytea with an aad';
