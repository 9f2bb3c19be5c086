-- What it takes to change some rows of a table, measured: each gets its own wrapped keys, as a batch of rewrap does it, and that is
-- rolled back. Again, since the first time has the images of pages in the WAL that are due after a checkpoint, and the second has not;
-- and four times for the time that it takes. Without the scan of a whole table that the planner has for some thousand tids.
-- All NULL where it cannot be done: without the right, on a standby, if a row is locked or a trigger refuses.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_trial(
    leaf oid, column_name name, row_count bigint,
    OUT rows bigint, OUT blocks bigint, OUT seconds double precision, OUT first_bytes bigint, OUT second_bytes bigint, OUT images bigint,
    OUT is_hot boolean
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET standard_conforming_strings = on AS $$
#variable_conflict use_variable
DECLARE
    places CONSTANT bigint := 4;
    leaf_blocks CONSTANT bigint := pg_relation_size(leaf, 'main') / current_setting('block_size')::bigint;
    fires CONSTANT boolean := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = leaf AND NOT tgisinternal AND tgenabled <> 'D');
    tids tid[] := '{}';
    some_tids tid[];
    plan jsonb;
    before pg_lsn;
    trials jsonb[] := '{}';
BEGIN
    PERFORM envelope_internal.rotation_rights(leaf, jsonb_build_object('column', column_name));
    FOR place IN 0..places - 1 LOOP
        EXECUTE format('SELECT array_agg(c) FROM (SELECT ctid AS c FROM ONLY %s WHERE ctid >= $1 AND %I IS NOT NULL LIMIT $2) AS s',
            leaf::regclass, column_name)
            INTO some_tids USING format('(%s,0)', leaf_blocks * place / places)::tid, row_count / places;
        tids := tids || some_tids;
    END LOOP;
    tids := ARRAY(SELECT DISTINCT t FROM unnest(tids) AS t ORDER BY t);
    rows := cardinality(tids);
    blocks := (SELECT count(DISTINCT split_part(t::text, ',', 1)) FROM unnest(tids) AS t);
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR trial IN 1..4 LOOP
        BEGIN
            before := pg_current_wal_insert_lsn();
            EXECUTE format('EXPLAIN (ANALYZE, WAL, BUFFERS, TIMING OFF, FORMAT JSON)
                UPDATE ONLY %s AS t SET %2$I = CASE WHEN envelope_internal.is_envelope(t.%2$I)
                    THEN envelope_internal.splice(t.%2$I, t.%2$I) ELSE t.%2$I END WHERE t.ctid = ANY (%3$L::tid[])',
                leaf::regclass, column_name, tids) INTO plan;
            plan := jsonb_build_object('seconds', (plan -> 0 ->> 'Execution Time')::double precision / 1000,
                -- What triggers write is not in the plan's own figures; what other sessions write is in the server's.
                'bytes', CASE WHEN fires THEN pg_current_wal_insert_lsn() - before ELSE (plan -> 0 -> 'Plan' ->> 'WAL Bytes')::numeric END,
                'images', (plan -> 0 -> 'Plan' ->> 'WAL FPI')::bigint, 'records', (plan -> 0 -> 'Plan' ->> 'WAL Records')::bigint);
            RAISE SQLSTATE 'XENVT';
        EXCEPTION WHEN SQLSTATE 'XENVT' THEN
            trials := trials || plan;
        END;
    END LOOP;
    -- Each: on a busy machine they differ much.
    seconds := (SELECT avg((t ->> 'seconds')::double precision) FROM unnest(trials) AS t);
    is_hot := (trials[1] ->> 'records')::bigint < rows * 1.5
        AND EXISTS (SELECT FROM pg_index WHERE indrelid = leaf);
    first_bytes := (trials[1] ->> 'bytes')::bigint;
    second_bytes := (trials[2] ->> 'bytes')::bigint;
    images := greatest((trials[1] ->> 'images')::bigint - (trials[2] ->> 'images')::bigint, 0);
EXCEPTION WHEN OTHERS THEN
    rows := NULL;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_trial(oid, name, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_trial(oid, name, bigint) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_trial(oid, name, bigint) IS
    'part of env_rotation_plan: update some rows, measure that, and roll it back';
