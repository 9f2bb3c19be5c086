-- The same under another label, because a generated column takes nothing but IMMUTABLE. What the label costs: where
-- all arguments are constants the planner evaluates the call once, and every row gets the same value.
CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

REVOKE ALL ON FUNCTION
    @extschema@.env_encrypt_generated(text, text),
    @extschema@.env_encrypt_generated(text, text, jsonb),
    @extschema@.env_encrypt_generated(text, text, jsonb, text),
    @extschema@.env_encrypt_generated(bytea, text),
    @extschema@.env_encrypt_generated(bytea, text, jsonb),
    @extschema@.env_encrypt_generated(bytea, text, jsonb, text),
    @extschema@.env_encrypt_generated(jsonb, text),
    @extschema@.env_encrypt_generated(jsonb, text, jsonb),
    @extschema@.env_encrypt_generated(jsonb, text, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_encrypt_generated(text, text),
    @extschema@.env_encrypt_generated(text, text, jsonb),
    @extschema@.env_encrypt_generated(text, text, jsonb, text),
    @extschema@.env_encrypt_generated(bytea, text),
    @extschema@.env_encrypt_generated(bytea, text, jsonb),
    @extschema@.env_encrypt_generated(bytea, text, jsonb, text),
    @extschema@.env_encrypt_generated(jsonb, text),
    @extschema@.env_encrypt_generated(jsonb, text, jsonb),
    @extschema@.env_encrypt_generated(jsonb, text, jsonb, text)
    TO envelope_encrypt;

COMMENT ON FUNCTION @extschema@.env_encrypt_generated(text, text) IS
    'encrypt text under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(text, text, jsonb) IS
    'encrypt text under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(text, text, jsonb, text) IS
    'encrypt text under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(bytea, text) IS
    'encrypt bytea under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION @extschema@.env_encrypt_generated(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
