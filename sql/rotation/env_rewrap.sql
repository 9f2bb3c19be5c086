-- Rotation. Values of one key, or of one data key, are brought under another.
CREATE OR REPLACE FUNCTION @extschema@.env_rewrap(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_rewrap';

REVOKE ALL ON FUNCTION @extschema@.env_rewrap(bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_rewrap(bytea, text) TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rewrap(bytea, text) IS
    'bring an encrypted value under another KMS key: KMS re-encrypts its data key, the ciphertext stays, nothing is decrypted here';
