CREATE OR REPLACE FUNCTION @extschema@.env_decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

REVOKE ALL ON FUNCTION @extschema@.env_decrypt_jsonb(bytea), @extschema@.env_decrypt_jsonb(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_decrypt_jsonb(bytea),
    @extschema@.env_decrypt_jsonb(bytea, text)
    TO envelope_decrypt;

COMMENT ON FUNCTION @extschema@.env_decrypt_jsonb(bytea) IS
    'decrypt a value that was encrypted from jsonb';
COMMENT ON FUNCTION @extschema@.env_decrypt_jsonb(bytea, text) IS
    'decrypt a value that was encrypted from jsonb with an aad';
