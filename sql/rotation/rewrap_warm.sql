-- What env_rotate is made of. NULL as to_key of reencrypt_warm: the values will be opened only.
CREATE OR REPLACE FUNCTION envelope_internal.rewrap_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_warm';

CREATE OR REPLACE FUNCTION envelope_internal.reencrypt_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_reencrypt_warm';

CREATE OR REPLACE FUNCTION envelope_internal.rewrap_target(to_key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_target';

CREATE OR REPLACE FUNCTION envelope_internal.prove_deks(values_or_stubs bytea[]) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_prove_deks';

-- These ask nobody.
CREATE OR REPLACE FUNCTION envelope_internal.is_warm(value_or_stub bytea) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_is_warm';

CREATE OR REPLACE FUNCTION envelope_internal.rewrapped(stub bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrapped';

CREATE OR REPLACE FUNCTION envelope_internal.rewrap_check(value_or_stub bytea, to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_check';

CREATE OR REPLACE FUNCTION envelope_internal.may_rewrap(value_or_stub bytea, to_key text) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_may_rewrap';

REVOKE ALL ON FUNCTION
    envelope_internal.rewrap_warm(bytea[], text),
    envelope_internal.reencrypt_warm(bytea[], text),
    envelope_internal.prove_deks(bytea[]),
    envelope_internal.is_warm(bytea),
    envelope_internal.rewrapped(bytea, text),
    envelope_internal.rewrap_check(bytea, text),
    envelope_internal.may_rewrap(bytea, text),
    envelope_internal.rewrap_target(text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rewrap_warm(bytea[], text),
    envelope_internal.reencrypt_warm(bytea[], text),
    envelope_internal.prove_deks(bytea[]),
    envelope_internal.is_warm(bytea),
    envelope_internal.rewrapped(bytea, text),
    envelope_internal.rewrap_check(bytea, text),
    envelope_internal.may_rewrap(bytea, text),
    envelope_internal.rewrap_target(text)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rewrap_warm(bytea[], text) IS
    'have the data keys of these values or stubs rewrapped concurrently, for env_rewrap in this session';
COMMENT ON FUNCTION envelope_internal.reencrypt_warm(bytea[], text) IS
    'have the data keys of these values or stubs unwrapped concurrently, for env_reencrypt in this session';
COMMENT ON FUNCTION envelope_internal.prove_deks(bytea[]) IS
    'an error unless the key provider opens the wrapped data keys of these values or stubs: it is asked, once for each in a session';
COMMENT ON FUNCTION envelope_internal.is_warm(bytea) IS
    'whether this session has the data key of a value or stub';
COMMENT ON FUNCTION envelope_internal.rewrapped(bytea, text) IS
    'the stub with the wrapped keys that KMS has made for this session; null if it has not';
COMMENT ON FUNCTION envelope_internal.rewrap_check(bytea, text) IS
    'an error if a value cannot or may not be rewrapped under a key, as far as that is known without asking KMS';
COMMENT ON FUNCTION envelope_internal.may_rewrap(bytea, text) IS
    'whether rewrap_check has nothing against it';
COMMENT ON FUNCTION envelope_internal.rewrap_target(text) IS
    'the key that a key id stands for, if that is known without asking KMS';
