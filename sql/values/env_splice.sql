-- No right is needed: all that comes out stands in the arguments, and whoever may write a value can as well write nonsense.
CREATE OR REPLACE FUNCTION @extschema@.env_splice(value bytea, donor bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_splice';

COMMENT ON FUNCTION @extschema@.env_splice(bytea, bytea) IS
    'an encrypted value with the wrapped keys of another value, or stub, of the same data key; nothing is decrypted';
