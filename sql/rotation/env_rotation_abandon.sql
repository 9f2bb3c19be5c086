CREATE OR REPLACE FUNCTION @extschema@.env_rotation_abandon(run_id bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    r envelope_internal.rotation_run;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('run_id', run_id));
    SELECT * INTO r FROM envelope_internal.rotation_run AS s WHERE s.run_id = $1;
    IF NOT FOUND THEN
        RAISE 'run % does not exist', run_id USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT pg_try_advisory_xact_lock(r.lock_key) THEN
        RAISE 'run % is running', run_id USING ERRCODE = 'object_in_use', HINT = 'Cancel its CALL first.';
    END IF;
    IF r.status NOT IN ('open', 'failed rows') THEN
        RAISE 'run % is over', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE envelope_internal.rotation_run AS s
    SET status = 'abandoned', updated = clock_timestamp(), finished = clock_timestamp()
    WHERE s.run_id = $1;
    IF NOT FOUND THEN
        RAISE 'role % needs UPDATE on column "%" of %', current_user, r.column_name, r.relation_name
            USING ERRCODE = 'insufficient_privilege', HINT = 'Who may not rotate the column may not give up its runs.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_rotation_abandon(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_rotation_abandon(bigint) TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rotation_abandon(bigint) IS
    'give up a run that is not running; what it has done stays';
