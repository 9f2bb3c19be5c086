-- Decrypt. STABLE and never IMMUTABLE: an index must not hold plaintext.
CREATE OR REPLACE FUNCTION @extschema@.env_decrypt(value bytea) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

REVOKE ALL ON FUNCTION @extschema@.env_decrypt(bytea), @extschema@.env_decrypt(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_decrypt(bytea), @extschema@.env_decrypt(bytea, text) TO envelope_decrypt;

COMMENT ON FUNCTION @extschema@.env_decrypt(bytea) IS
    'decrypt a value that was encrypted from text';
COMMENT ON FUNCTION @extschema@.env_decrypt(bytea, text) IS
    'decrypt a value that was encrypted from text with an aad';
