-- For the statements of a batch, in which the arrays are parameters.
CREATE OR REPLACE FUNCTION envelope_internal.is_of_any(value bytea, stubs bytea[]) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_is_of_any';

CREATE OR REPLACE FUNCTION envelope_internal.splice_any(value bytea, stubs bytea[], donors bytea[]) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_splice_any';

COMMENT ON FUNCTION envelope_internal.is_of_any(bytea, bytea[]) IS
    'part of env_rotate: whether a value has the data key and wrapped keys of one of the stubs';
COMMENT ON FUNCTION envelope_internal.splice_any(bytea, bytea[], bytea[]) IS
    'part of env_rotate: the value with the wrapped keys of the donor that belongs to its stub';
