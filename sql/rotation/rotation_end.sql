CREATE OR REPLACE FUNCTION envelope_internal.rotation_end(run bigint, p jsonb) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    r envelope_internal.rotation_run;
BEGIN
    SELECT * INTO STRICT r FROM envelope_internal.rotation_run AS s WHERE s.run_id = run;
    PERFORM envelope_internal.rotation_unlock(r.lock_key);
    IF r.not_envelopes > 0 THEN
        RAISE WARNING 'run %: values that are no encrypted values and are as they were: %', run, r.not_envelopes;
    END IF;
    IF r.target_only > 0 THEN
        RAISE WARNING 'run %: rows with nothing in column "%" and something in column "%": %', run, r.parameters ->> 'source',
                r.column_name, r.target_only
            USING HINT = 'If somebody sets the one to null to delete it, the other has to be set to null, too.';
    END IF;
    IF r.status = 'open' AND clock_timestamp() >= (p ->> 'deadline')::timestamptz THEN
        RAISE NOTICE 'run % pauses: its time is up, in pass % at % of % blocks, % rows done', run, r.pass, r.blocks_done, r.blocks_total,
                r.rows_done
            USING HINT = 'The same CALL goes on; VACUUM the table before.';
        RETURN;
    END IF;
    IF r.failures > 0 THEN
        PERFORM envelope_internal.rotation_give_up(run, format('run %s is not done: %s rows failed and are as they were', run, r.failures),
            NULL::text, format('SELECT * FROM env_rotation_failure WHERE run_id = %s. Mend the cause, and the same CALL tries them again; '
                'or SELECT env_rotation_abandon(%s).', run, run));
    END IF;
    IF r.status = 'open' THEN
        RAISE WARNING 'run % is not finished: after % passes % rows are left', run, r.pass, r.pass_left
            USING DETAIL = 'The last pass changed rows or met locked ones, so another one has to look whether any are left.',
                  HINT = 'Have writers use the new key; then the same CALL resumes the run.';
        RETURN;
    END IF;
    RAISE NOTICE 'run % is done: % rows in % s (% rows/s), % passes, % KMS calls', run, r.rows_done,
        round(r.seconds::numeric, 1), round((r.rows_done / greatest(r.seconds, 0.001))::numeric), r.pass, r.kms_calls;
    IF r.method = 'encrypt' THEN
        RAISE NOTICE 'plaintext is left in column "%" (unless it was cleared), in dead rows, indexes, old WAL, backups, replicas',
                r.parameters ->> 'source'
            USING HINT = 'Have the application read the encrypted column; drop the plaintext column; VACUUM FULL or '
                'pg_repack the table; let WAL archives and backups expire.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_end(bigint, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_end(bigint, jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_end(bigint, jsonb) IS
    'part of env_rotate: say how a run ended';
