-- Ends the CALL, and not the run. NULL as error_code: the one of the failure that most rows have.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_give_up(run bigint, message text, error_code text, hint text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    f envelope_internal.rotation_failure;
BEGIN
    SELECT * INTO f FROM envelope_internal.rotation_failure AS s WHERE s.run_id = $1
    ORDER BY s.tid IS NULL AND s.dek_id IS NULL, s.row_count DESC, s.failure_id LIMIT 1;
    RAISE '%', message USING ERRCODE = coalesce(error_code, f.sqlstate), HINT = hint,
        DETAIL = format('One of the failures: %s %s.', f.sqlstate, f.message);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_give_up(bigint, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_give_up(bigint, text, text, text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_give_up(bigint, text, text, text) IS
    'part of env_rotate: end the CALL, and not the run';
