-- env_encrypt for drivers that send bytea without its type: what has none is taken for bytea, and not for text.

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_bytea(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_bytea(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_bytea(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

REVOKE ALL ON FUNCTION
    @extschema@.env_encrypt_bytea(bytea, text),
    @extschema@.env_encrypt_bytea(bytea, text, jsonb),
    @extschema@.env_encrypt_bytea(bytea, text, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_encrypt_bytea(bytea, text),
    @extschema@.env_encrypt_bytea(bytea, text, jsonb),
    @extschema@.env_encrypt_bytea(bytea, text, jsonb, text)
    TO envelope_encrypt;

COMMENT ON FUNCTION @extschema@.env_encrypt_bytea(bytea, text) IS
    'encrypt bytea under a data key of the given KMS key';
COMMENT ON FUNCTION @extschema@.env_encrypt_bytea(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION @extschema@.env_encrypt_bytea(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad';
