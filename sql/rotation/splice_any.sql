-- For the statements of a batch, in which the arrays are parameters.
CREATE OR REPLACE FUNCTION envelope_internal.is_of_any(value bytea, stubs bytea[]) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_is_of_any';

CREATE OR REPLACE FUNCTION envelope_internal.splice_any(value bytea, stubs bytea[], donors bytea[]) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_splice_any';

-- What the UPDATE of a batch meets is counted in its session, so that no scan has to look first.
CREATE OR REPLACE FUNCTION envelope_internal.sift(value bytea, stubs bytea[]) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_sift';

CREATE OR REPLACE FUNCTION envelope_internal.sifted(
    OUT stubs bytea[], OUT counts bigint[], OUT strange bigint, OUT matched bigint, OUT sealed bytea[]
) LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'env_sifted';

REVOKE ALL ON FUNCTION envelope_internal.sift(bytea, bytea[]), envelope_internal.sifted() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.sift(bytea, bytea[]), envelope_internal.sifted() TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.is_of_any(bytea, bytea[]) IS
    'part of env_rotate: whether a value has the data key and wrapped keys of one of the stubs';
COMMENT ON FUNCTION envelope_internal.splice_any(bytea, bytea[], bytea[]) IS
    'part of env_rotate: the value with the wrapped keys of the donor that belongs to its stub';
COMMENT ON FUNCTION envelope_internal.sift(bytea, bytea[]) IS
    'part of env_rotate: as is_of_any, and counts what it meets for sifted';
COMMENT ON FUNCTION envelope_internal.sifted() IS
    'part of env_rotate: how many values sift has let through, the data keys of the others, and those that were sealed with since';
