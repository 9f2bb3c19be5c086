CREATE OR REPLACE FUNCTION @extschema@.env_key_ids(value bytea) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_key_ids';

COMMENT ON FUNCTION @extschema@.env_key_ids(bytea) IS
    'all KMS keys that wrap the data key of an encrypted value; each of them can open it';
