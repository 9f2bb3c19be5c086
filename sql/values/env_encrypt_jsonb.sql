-- env_encrypt for drivers that send jsonb without its type: what has none is taken for jsonb, and not for text.

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_jsonb(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_jsonb(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_jsonb(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

REVOKE ALL ON FUNCTION
    @extschema@.env_encrypt_jsonb(jsonb, text),
    @extschema@.env_encrypt_jsonb(jsonb, text, jsonb),
    @extschema@.env_encrypt_jsonb(jsonb, text, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_encrypt_jsonb(jsonb, text),
    @extschema@.env_encrypt_jsonb(jsonb, text, jsonb),
    @extschema@.env_encrypt_jsonb(jsonb, text, jsonb, text)
    TO envelope_encrypt;

COMMENT ON FUNCTION @extschema@.env_encrypt_jsonb(jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key';
COMMENT ON FUNCTION @extschema@.env_encrypt_jsonb(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION @extschema@.env_encrypt_jsonb(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad';
