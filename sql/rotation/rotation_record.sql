-- Writes down what a batch has done, in its transaction, and says how to go on. The time since the record before is the run's, with
-- commits, pauses and what KMS takes.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_record(
    run bigint, p jsonb, began timestamptz, from_block bigint, to_block bigint,
    changed bigint, left_rows bigint, not_envelopes bigint, target_only bigint, stubs bytea[],
    INOUT kms_seen bigint, INOUT noticed timestamptz, INOUT since timestamptz, OUT blocks bigint, OUT pause double precision, OUT is_over boolean
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    r envelope_internal.rotation_run;
    elapsed double precision := extract(epoch FROM clock_timestamp() - began);
    spent double precision := extract(epoch FROM clock_timestamp() - since);
    calls bigint := (envelope_internal.kms_calls()).statement;
BEGIN
    IF stubs <> '{}' THEN
        PERFORM envelope_internal.rotation_sealed(run, stubs);
    END IF;
    pause := greatest(coalesce(changed / (p ->> 'max_rows_per_second')::double precision, 0) - elapsed, 0);
    since := clock_timestamp() + make_interval(secs => pause);
    UPDATE envelope_internal.rotation_run AS s
    SET next_block = to_block, blocks_done = s.blocks_done + to_block - from_block,
        pass_changed = s.pass_changed + changed, pass_left = s.pass_left + left_rows,
        rows_done = s.rows_done + changed, not_envelopes = s.not_envelopes + rotation_record.not_envelopes,
        target_only = s.target_only + rotation_record.target_only,
        kms_calls = s.kms_calls + calls - kms_seen,
        seconds = s.seconds + spent + pause,
        -- How fast the pass goes: without the batches before this one if they were small, as the first ones of a CALL are.
        pass_seconds = spent + pause + CASE WHEN to_block - from_block > 2 * s.pass_blocks THEN 0 ELSE s.pass_seconds END,
        pass_blocks = to_block - from_block + CASE WHEN to_block - from_block > 2 * s.pass_blocks THEN 0 ELSE s.pass_blocks END,
        updated = clock_timestamp()
    WHERE s.run_id = run RETURNING * INTO r;
    kms_seen := calls;
    -- Batches of about a tenth of a second: short locks, and little that is done twice after a crash.
    blocks := coalesce((p ->> 'batch_blocks')::bigint, greatest(1, least(4096, ceil((to_block - from_block)
        * least(8, greatest(0.1, coalesce((p ->> 'batch_seconds')::double precision, 0.1) / greatest(elapsed, 0.001)))))));
    IF (p ->> 'max_rows_per_second') IS NOT NULL THEN
        -- And none of more rows than a quarter of a second allows. Where there were none the blocks behind may be full: 64 rows each.
        blocks := greatest(1, least(blocks, floor((p ->> 'max_rows_per_second')::numeric / 4
            * CASE WHEN changed > 0 THEN (to_block - from_block)::numeric / changed ELSE 1 / 64.0 END)::bigint));
    END IF;
    is_over := clock_timestamp() >= (p ->> 'deadline')::timestamptz IS TRUE;
    IF clock_timestamp() - noticed >= interval '5 seconds' THEN
        noticed := clock_timestamp();
        RAISE NOTICE 'run %: pass %, % of % blocks, % rows done, % rows/s, % KMS calls, % failures',
            run, r.pass, r.blocks_done, r.blocks_total, r.rows_done,
            round((r.rows_done / greatest(r.seconds, 0.001))::numeric), r.kms_calls, r.failures;
    END IF;
END
$$;

-- The data keys that a run has sealed with.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_sealed(run bigint, stubs bytea[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
BEGIN
    INSERT INTO envelope_internal.rotation_dek (run_id, dek_id, key_id, is_new)
    SELECT run, envelope_internal.dek_id(stub), min(envelope_internal.key_id(stub)), true
    FROM unnest($2) AS u (stub) WHERE stub IS NOT NULL GROUP BY 2
    ON CONFLICT (run_id, dek_id) DO UPDATE SET is_new = true WHERE NOT rotation_dek.is_new;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_sealed(bigint, bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_sealed(bigint, bytea[]) TO envelope_rotate;
REVOKE ALL ON FUNCTION
    envelope_internal.rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz, timestamptz)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz, timestamptz)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz, timestamptz) IS
    'part of env_rotate: write down what a batch has done';
COMMENT ON FUNCTION envelope_internal.rotation_sealed(bigint, bytea[]) IS
    'part of env_rotate: write down the data keys that it has sealed with';
