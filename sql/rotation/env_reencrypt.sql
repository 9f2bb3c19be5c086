CREATE OR REPLACE FUNCTION @extschema@.env_reencrypt(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE OR REPLACE FUNCTION @extschema@.env_reencrypt(value bytea, to_key text, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

REVOKE ALL ON FUNCTION @extschema@.env_reencrypt(bytea, text), @extschema@.env_reencrypt(bytea, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_reencrypt(bytea, text),
    @extschema@.env_reencrypt(bytea, text, text)
    TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_reencrypt(bytea, text) IS
    'seal an encrypted value again under a data key of the given KMS key; its plaintext is not returned';
COMMENT ON FUNCTION @extschema@.env_reencrypt(bytea, text, text) IS
    'seal an encrypted value with an aad again under a data key of the given KMS key; its plaintext is not returned';
