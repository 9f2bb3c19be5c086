CREATE OR REPLACE FUNCTION @extschema@.env_dek_stub(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_dek_stub';

COMMENT ON FUNCTION @extschema@.env_dek_stub(bytea) IS
    'the head of an encrypted value without data: one for each data key; null for what is not an encrypted value';
