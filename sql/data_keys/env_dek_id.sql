CREATE OR REPLACE FUNCTION @extschema@.env_dek_id(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 2 AS 'MODULE_PATHNAME', 'env_dek_id';

COMMENT ON FUNCTION @extschema@.env_dek_id(bytea) IS
    'the id (32-byte key commitment) of the data key of an encrypted value';
