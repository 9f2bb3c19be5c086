-- The data keys of a batch: a stub of each with the number of its values, and how many were no values.
DO $$
BEGIN
    IF to_regtype('envelope_internal.dek_counts') IS NULL THEN
        CREATE TYPE envelope_internal.dek_counts AS (stubs bytea[], counts bigint[], strange bigint);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION envelope_internal.dek_counts_transition(internal, value bytea) RETURNS internal
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_dek_counts_transition';

CREATE OR REPLACE FUNCTION envelope_internal.dek_counts_final(internal) RETURNS envelope_internal.dek_counts
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_dek_counts_final';

CREATE OR REPLACE AGGREGATE envelope_internal.count_deks(value bytea) (
    SFUNC = envelope_internal.dek_counts_transition,
    STYPE = internal,
    FINALFUNC = envelope_internal.dek_counts_final,
    PARALLEL = RESTRICTED
);

REVOKE ALL ON FUNCTION
    envelope_internal.dek_counts_transition(internal, bytea),
    envelope_internal.dek_counts_final(internal),
    envelope_internal.count_deks(bytea)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.dek_counts_transition(internal, bytea),
    envelope_internal.dek_counts_final(internal),
    envelope_internal.count_deks(bytea)
    TO envelope_rotate;

COMMENT ON TYPE envelope_internal.dek_counts IS
    'the data keys of some values';
COMMENT ON FUNCTION envelope_internal.dek_counts_transition(internal, bytea) IS
    'transition function of the aggregate count_deks';
COMMENT ON FUNCTION envelope_internal.dek_counts_final(internal) IS
    'final function of the aggregate count_deks';
COMMENT ON AGGREGATE envelope_internal.count_deks(bytea) IS
    'part of env_rotate: the data keys of some values, and how many values each has';
