-- What env_rotate is made of. NULL as to_key of reencrypt_warm: the values will be opened only.
CREATE OR REPLACE FUNCTION envelope_internal.rewrap_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_warm';

CREATE OR REPLACE FUNCTION envelope_internal.reencrypt_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_reencrypt_warm';

CREATE OR REPLACE FUNCTION envelope_internal.rewrap_target(to_key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_target';

REVOKE ALL ON FUNCTION
    envelope_internal.rewrap_warm(bytea[], text),
    envelope_internal.reencrypt_warm(bytea[], text),
    envelope_internal.rewrap_target(text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rewrap_warm(bytea[], text),
    envelope_internal.reencrypt_warm(bytea[], text),
    envelope_internal.rewrap_target(text)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rewrap_warm(bytea[], text) IS
    'have the data keys of these values or stubs rewrapped concurrently, for env_rewrap in this session';
COMMENT ON FUNCTION envelope_internal.reencrypt_warm(bytea[], text) IS
    'have the data keys of these values or stubs unwrapped concurrently, for env_reencrypt in this session';
COMMENT ON FUNCTION envelope_internal.rewrap_target(text) IS
    'the key that a key id stands for, if that is known without asking KMS';
