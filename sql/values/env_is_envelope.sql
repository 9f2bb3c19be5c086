-- Read the header: no key, no KMS call.
CREATE OR REPLACE FUNCTION @extschema@.env_is_envelope(value bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_is_envelope';

-- Not STRICT, as with env_encrypt: a NULL key is an error, and never a CHECK that lets everything through.
CREATE OR REPLACE FUNCTION @extschema@.env_is_envelope(value bytea, key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 5 AS 'MODULE_PATHNAME', 'env_is_envelope_of_key';

COMMENT ON FUNCTION @extschema@.env_is_envelope(bytea) IS
    'whether a bytea has the form of an encrypted value (nothing is decrypted)';
COMMENT ON FUNCTION @extschema@.env_is_envelope(bytea, text) IS
    'whether a bytea has the form of a value encrypted under this key, or a replica of it (nothing is decrypted)';
