-- What an error means for the run: 'row' is left alone, and a failure; 'later' is tried in the next pass; 'stop' ends the CALL,
-- which then resumes. Whatever a row raises is its own: so 'stop' is what says something of the server, of KMS or of the
-- table. 'key' is a refusal, by KMS or by PostgreSQL: of a data key when KMS is asked for it, which leaves its rows alone; of
-- all else when rows are updated, such as a right or a replica identity that the table lacks, which ends the CALL.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_triage(error_code text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN error_code IN ('40001', '40P01', '55P03') THEN 'later'
        WHEN error_code IN ('42501', '42704', '55000') THEN 'key'
        WHEN error_code = 'XX001' THEN 'row'
        -- Connections, transactions, resources, the operator, the system; a table or column that is gone.
        WHEN left(error_code, 2) IN ('08', '25', '3D', '53', '57', '58', 'F0', 'XX') OR error_code IN ('42P01', '42703', '42P07') THEN 'stop'
        ELSE 'row'
    END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_triage(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_triage(text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_triage(text) IS
    'part of env_rotate: whether an error is about a row, passes, or ends the run';
