-- COST is measured, with short values: 1 is about 12 ns, a quarter of what the scan of a short row takes, as the planner's
-- cpu_operator_cost is of its cpu_tuple_cost. So cheap conditions are tested first, and a scan that decrypts goes parallel
-- where that pays. KMS calls are not in it: there is one for each data key, not for each value.

-- Encrypt. Overloads, not defaults, and not STRICT: a NULL key, context or aad is an error, never a silent NULL.
CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

REVOKE ALL ON FUNCTION
    @extschema@.env_encrypt(text, text),
    @extschema@.env_encrypt(text, text, jsonb),
    @extschema@.env_encrypt(text, text, jsonb, text),
    @extschema@.env_encrypt(bytea, text),
    @extschema@.env_encrypt(bytea, text, jsonb),
    @extschema@.env_encrypt(bytea, text, jsonb, text),
    @extschema@.env_encrypt(jsonb, text),
    @extschema@.env_encrypt(jsonb, text, jsonb),
    @extschema@.env_encrypt(jsonb, text, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_encrypt(text, text),
    @extschema@.env_encrypt(text, text, jsonb),
    @extschema@.env_encrypt(text, text, jsonb, text),
    @extschema@.env_encrypt(bytea, text),
    @extschema@.env_encrypt(bytea, text, jsonb),
    @extschema@.env_encrypt(bytea, text, jsonb, text),
    @extschema@.env_encrypt(jsonb, text),
    @extschema@.env_encrypt(jsonb, text, jsonb),
    @extschema@.env_encrypt(jsonb, text, jsonb, text)
    TO envelope_encrypt;

COMMENT ON FUNCTION @extschema@.env_encrypt(text, text) IS
    'encrypt text under a data key of the given KMS key';
COMMENT ON FUNCTION @extschema@.env_encrypt(text, text, jsonb) IS
    'encrypt text under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION @extschema@.env_encrypt(text, text, jsonb, text) IS
    'encrypt text under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION @extschema@.env_encrypt(bytea, text) IS
    'encrypt bytea under a data key of the given KMS key';
COMMENT ON FUNCTION @extschema@.env_encrypt(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION @extschema@.env_encrypt(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION @extschema@.env_encrypt(jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key';
COMMENT ON FUNCTION @extschema@.env_encrypt(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION @extschema@.env_encrypt(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad';
