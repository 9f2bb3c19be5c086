-- What an error means for the run: 'row' is left alone, 'later' is tried in the next pass, 'stop' ends the CALL, which then
-- resumes. 'key' is a refusal, by KMS or by PostgreSQL: of a data key when KMS is asked for it, which leaves its rows alone; of
-- all else when rows are updated, such as a right or a replica identity that the table lacks, which ends the CALL.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_triage(error_code text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN error_code IN ('40001', '40P01', '55P03') THEN 'later'
        WHEN left(error_code, 2) IN ('22', '23', '44')
            OR error_code IN ('0A000', '42804', 'P0001') THEN 'row'
        WHEN error_code IN ('42501', '42704', '55000') THEN 'key'
        ELSE 'stop'
    END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_triage(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_triage(text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_triage(text) IS
    'part of env_rotate: whether an error is about a row, passes, or ends the run';
