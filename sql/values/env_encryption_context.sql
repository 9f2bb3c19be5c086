CREATE OR REPLACE FUNCTION @extschema@.env_encryption_context(value bytea) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_encryption_context';

COMMENT ON FUNCTION @extschema@.env_encryption_context(bytea) IS
    'the KMS encryption context of an encrypted value';
