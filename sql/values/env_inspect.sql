CREATE OR REPLACE FUNCTION @extschema@.env_inspect(
    value bytea,
    OUT format_version integer,
    OUT suite text,
    OUT type text,
    OUT has_aad boolean,
    OUT is_padded boolean,
    OUT dek_id bytea,
    OUT encryption_context jsonb,
    OUT wrapped_keys integer,
    OUT provider text,
    OUT key_id text,
    OUT wrapped_dek bytea,
    OUT nonce bytea,
    OUT ciphertext_bytes bigint,
    OUT value_bytes bigint
) RETURNS record
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 75 AS 'MODULE_PATHNAME', 'env_inspect';

COMMENT ON FUNCTION @extschema@.env_inspect(bytea) IS
    'the unencrypted parts of an encrypted value, and its sizes in bytes';
