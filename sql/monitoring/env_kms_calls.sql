CREATE OR REPLACE FUNCTION @extschema@.env_kms_calls(OUT statement bigint, OUT transaction bigint, OUT session bigint) RETURNS record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_kms_calls';

COMMENT ON FUNCTION @extschema@.env_kms_calls() IS
    'KMS calls that the current statement, the current transaction and this session have caused';
