CREATE OR REPLACE FUNCTION envelope_internal.named_key_validator(options pg_catalog.text[], catalog pg_catalog.oid) RETURNS pg_catalog.void
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_named_key_validator';

COMMENT ON FUNCTION envelope_internal.named_key_validator(pg_catalog.text[], pg_catalog.oid) IS
    'checks the options of a named key';

REVOKE ALL ON FUNCTION envelope_internal.named_key_validator(pg_catalog.text[], pg_catalog.oid) FROM PUBLIC;
