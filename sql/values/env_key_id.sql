CREATE OR REPLACE FUNCTION @extschema@.env_key_id(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_key_id';

COMMENT ON FUNCTION @extschema@.env_key_id(bytea) IS
    'the KMS key that wraps the data key of an encrypted value: a key ARN, or local:name';
