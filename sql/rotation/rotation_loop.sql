-- The batches of a run. A procedure that commits cannot fix its search_path, so nothing is decided here: all that is in
-- functions that do. A batch that fails for the sake of a row is done row by row.
CREATE OR REPLACE PROCEDURE envelope_internal.rotation_loop(run bigint, p pg_catalog.jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    step pg_catalog.record;
    due pg_catalog.record;
    outcome pg_catalog.record;
    began pg_catalog.timestamptz;
    first_pass integer;
    blocks bigint := 1;
    -- Where there are few data keys, a look at few blocks finds them all.
    ahead_blocks bigint := 256;
    found envelope_internal.dek_counts;
    ahead envelope_internal.dek_counts;
    asked integer := 0;
    answer pg_catalog.record;
    leaves pg_catalog.oid[];
    method pg_catalog.text := pg_catalog.jsonb_extract_path_text(p, 'method');
    refused pg_catalog.bytea[] := '{}';
    retired pg_catalog.text[] := '{}';
    due_rows bigint;
    target_only bigint := 0;
    changed bigint;
    row_changed bigint;
    not_verified bigint;
    deks pg_catalog.bytea[];
    row_deks pg_catalog.bytea[];
    by_row boolean;
    counts_rows boolean;
    row_due bigint;
    row_target_only bigint;
    is_done boolean;
    careful integer := 0;
    known pg_catalog.record;
    known_stubs pg_catalog.bytea[] := '{}';
    known_donors pg_catalog.bytea[] := '{}';
    sifted pg_catalog.record;
    is_sifted boolean;
    sifted_changed bigint;
    left_rows bigint;
    lock_timeout_before pg_catalog.text;
    tids pg_catalog.tid[];
    row_tid pg_catalog.tid;
    triage pg_catalog.text;
    kms_seen bigint := 0;
    noticed pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    since pg_catalog.timestamptz := noticed;
BEGIN
    IF envelope_internal.citus_form(CAST(pg_catalog.jsonb_extract_path_text(p, 'relation') AS pg_catalog.oid)) IS NOT NULL THEN
        CALL envelope_internal.citus_loop(run, p);
        RETURN;
    END IF;
    LOOP
        -- The statements below are right under READ COMMITTED only. That must be said before anything takes a snapshot, as the
        -- evaluation of an expression can.
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        -- What a row's deferred triggers raise is raised where that row is changed. And compiling takes longer than a batch.
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM pg_catalog.set_config('jit', 'off', true);
        -- The lock of the run goes soon after its client.
        IF pg_catalog.current_setting('client_connection_check_interval') OPERATOR(pg_catalog.=) '0'::pg_catalog.text
            AND pg_catalog.strpos(pg_catalog.version(), 'linux') OPERATOR(pg_catalog.>) 0 THEN
            PERFORM pg_catalog.set_config('client_connection_check_interval', '2s', true);
        END IF;
        began := pg_catalog.clock_timestamp();
        SELECT s.* INTO step FROM envelope_internal.rotation_next(run, p, blocks, ahead_blocks, first_pass, leaves) AS s;
        EXIT WHEN step.finished;
        leaves := step.leaves;
        first_pass := COALESCE(first_pass,
            CASE WHEN step.begins_pass THEN step.pass ELSE step.pass OPERATOR(pg_catalog.+) 1 END);
        IF step.begins_pass THEN
            refused := '{}';
            retired := '{}';
            -- What is left is mostly nothing: that is looked at, and not updated.
            known_stubs := '{}';
            PERFORM pg_catalog.pg_sleep(step.nap);
        END IF;
        changed := 0;
        deks := '{}';
        left_rows := 0;
        is_sifted := false;
        lock_timeout_before := pg_catalog.current_setting('lock_timeout');
        IF step.quick_sql IS NOT NULL AND careful OPERATOR(pg_catalog.=) 0
            AND known_stubs OPERATOR(pg_catalog.<>) CAST('{}' AS pg_catalog.bytea[]) THEN
            SELECT k.* INTO known FROM envelope_internal.rotation_known(p, known_stubs, known_donors) AS k;
            known_stubs := known.stubs;
            known_donors := known.donors;
            is_sifted := known_stubs OPERATOR(pg_catalog.<>) CAST('{}' AS pg_catalog.bytea[]);
        END IF;
        -- First a plain UPDATE with the data keys of the batches before. If that would wait for a row, or fails, it is undone and the
        -- careful one takes over, as it does for the batches behind: where one row is locked, others are likely to be.
        IF is_sifted THEN
            BEGIN
                PERFORM pg_catalog.set_config('lock_timeout', '10ms', true);
                PERFORM envelope_internal.sifted();
                IF step.quick_verifies THEN
                    EXECUTE step.quick_sql INTO changed, deks, not_verified USING step.from_tid, step.to_tid, known_stubs, known_donors;
                    PERFORM envelope_internal.rotation_verify(not_verified, deks, p);
                ELSE
                    EXECUTE step.quick_sql USING step.from_tid, step.to_tid, known_stubs, known_donors;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                END IF;
                SELECT s.* INTO sifted FROM envelope_internal.sifted() AS s;
                deks := pg_catalog.array_cat(deks, sifted.sealed);
                left_rows := GREATEST(sifted.matched OPERATOR(pg_catalog.-) changed, 0::bigint);
                found := ROW(sifted.stubs, sifted.counts, sifted.strange);
                PERFORM pg_catalog.set_config('lock_timeout', lock_timeout_before, true);
            EXCEPTION WHEN OTHERS THEN
                changed := 0;
                deks := '{}';
                left_rows := 0;
                careful := 8;
                is_sifted := false;
            END;
        END IF;
        IF NOT is_sifted THEN
            EXECUTE step.scan_sql INTO found USING step.from_tid, step.to_tid;
        END IF;
        sifted_changed := changed;
        SELECT d.* INTO due
        FROM envelope_internal.rotation_due(run, p, step.pass, step.leaf, found, asked OPERATOR(pg_catalog.>) 0, refused, retired) AS d;
        refused := due.refused;
        retired := due.retired;
        IF due.missing OPERATOR(pg_catalog.<>) CAST('{}' AS pg_catalog.bytea[]) THEN
            -- Together with those of the blocks behind, so that KMS is asked for many at a time.
            asked := asked OPERATOR(pg_catalog.+) 1;
            IF asked OPERATOR(pg_catalog.>) 3 THEN
                RAISE 'data keys of run % were wrapped and are not there', run USING ERRCODE = 'internal_error';
            END IF;
            EXECUTE step.scan_sql INTO ahead USING step.from_tid, step.ahead_tid;
            IF changed OPERATOR(pg_catalog.>) 0::bigint THEN
                -- No row stays locked while KMS is asked. The rest of the batch comes next.
                SELECT o.* INTO outcome
                FROM envelope_internal.rotation_record(run, p, began, step.from_block, step.from_block, changed, left_rows,
                    0::bigint, 0::bigint, deks, kms_seen, noticed, since) AS o;
                kms_seen := outcome.kms_seen;
                noticed := outcome.noticed;
                since := outcome.since;
                COMMIT;
                SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            END IF;
            SELECT a.* INTO answer FROM envelope_internal.rotation_ask(run, p, step.pass, step.leaf, ahead.stubs, refused) AS a;
            ahead_blocks := LEAST(ahead_blocks OPERATOR(pg_catalog.*) 4::bigint, 4096::bigint);
            refused := answer.refused;
            IF answer.failure IS NOT NULL THEN
                COMMIT;
                PERFORM envelope_internal.rotation_raise(answer.failure);
            END IF;
            CONTINUE;
        END IF;
        IF due.due OPERATOR(pg_catalog.<>) CAST('{}' AS pg_catalog.bytea[]) THEN
            -- Not too many: each is looked at for each batch.
            IF is_sifted AND pg_catalog.cardinality(known_stubs) OPERATOR(pg_catalog.<) 1000 THEN
                known_stubs := pg_catalog.array_cat(known_stubs, due.due);
                known_donors := pg_catalog.array_cat(known_donors, due.donors);
            ELSE
                known_stubs := due.due;
                known_donors := due.donors;
            END IF;
        END IF;
        asked := 0;
        due_rows := due.due_rows;
        IF step.count_sql IS NOT NULL THEN
            BEGIN
                EXECUTE step.count_sql INTO due_rows, target_only USING step.from_tid, step.to_tid, due.due;
            EXCEPTION WHEN OTHERS THEN
                -- An aad of one of the rows: they are counted row by row.
                IF envelope_internal.rotation_triage(SQLSTATE) OPERATOR(pg_catalog.<>) 'row'::pg_catalog.text THEN
                    RAISE;
                END IF;
                due_rows := NULL;
                target_only := 0;
            END;
        END IF;
        changed := 0;
        by_row := due_rows IS NULL;
        counts_rows := by_row;
        due_rows := COALESCE(due_rows, 0::bigint);
        is_done := by_row OR due_rows OPERATOR(pg_catalog.=) 0::bigint;
        row_deks := '{}';
        IF NOT is_done AND step.quick_sql IS NOT NULL AND careful OPERATOR(pg_catalog.=) 0 THEN
            BEGIN
                PERFORM pg_catalog.set_config('lock_timeout', '10ms', true);
                PERFORM envelope_internal.sifted();
                IF step.quick_verifies THEN
                    EXECUTE step.quick_sql INTO changed, row_deks, not_verified USING step.from_tid, step.to_tid, due.due, due.donors;
                    PERFORM envelope_internal.rotation_verify(not_verified, row_deks, p);
                ELSE
                    EXECUTE step.quick_sql USING step.from_tid, step.to_tid, due.due, due.donors;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                END IF;
                SELECT s.sealed INTO sifted FROM envelope_internal.sifted() AS s;
                row_deks := pg_catalog.array_cat(row_deks, sifted.sealed);
                is_done := true;
            EXCEPTION WHEN OTHERS THEN
                changed := 0;
                row_deks := '{}';
                careful := 8;
            END;
        ELSIF NOT is_done THEN
            careful := GREATEST(careful OPERATOR(pg_catalog.-) 1, 0);
        END IF;
        IF NOT is_done THEN
            BEGIN
                EXECUTE step.update_sql INTO changed, row_deks, not_verified USING step.from_tid, step.to_tid, due.due, due.donors;
                PERFORM envelope_internal.rotation_verify(not_verified, row_deks, p);
            EXCEPTION WHEN OTHERS THEN
                triage := envelope_internal.rotation_triage(SQLSTATE);
                IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                    RAISE;
                END IF;
                by_row := triage OPERATOR(pg_catalog.=) 'row'::pg_catalog.text;
                changed := 0;
                row_deks := '{}';
            END;
        END IF;
        deks := pg_catalog.array_cat(deks, row_deks);
        IF by_row THEN
            EXECUTE step.tids_sql INTO tids USING step.from_tid, step.to_tid, due.due, due.donors;
            FOREACH row_tid IN ARRAY COALESCE(tids, CAST('{}' AS pg_catalog.tid[])) LOOP
                BEGIN
                    row_due := 0;
                    IF counts_rows THEN
                        EXECUTE step.count_sql INTO row_due, row_target_only
                            USING row_tid, envelope_internal.rotation_next_tid(row_tid), due.due;
                    END IF;
                    EXECUTE step.update_sql INTO row_changed, row_deks, not_verified
                        USING row_tid, envelope_internal.rotation_next_tid(row_tid), due.due, due.donors;
                    PERFORM envelope_internal.rotation_verify(not_verified, row_deks, p);
                    changed := changed OPERATOR(pg_catalog.+) row_changed;
                    due_rows := due_rows OPERATOR(pg_catalog.+) row_due;
                    deks := pg_catalog.array_cat(deks, row_deks);
                EXCEPTION WHEN OTHERS THEN
                    triage := envelope_internal.rotation_triage(SQLSTATE);
                    IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                        RAISE;
                    ELSIF triage OPERATOR(pg_catalog.=) 'row'::pg_catalog.text THEN
                        PERFORM envelope_internal.rotation_fail(run, step.leaf, row_tid, NULL::pg_catalog.bytea, 1::bigint, SQLSTATE, SQLERRM);
                        -- Neither done nor left.
                        due_rows := due_rows OPERATOR(pg_catalog.-) CASE WHEN counts_rows THEN 0::bigint ELSE 1::bigint END;
                    ELSIF counts_rows THEN
                        due_rows := due_rows OPERATOR(pg_catalog.+) 1::bigint;
                    END IF;
                END;
            END LOOP;
        END IF;
        SELECT o.* INTO outcome
        FROM envelope_internal.rotation_record(run, p, began, step.from_block, step.to_block,
            changed OPERATOR(pg_catalog.+) sifted_changed,
            left_rows OPERATOR(pg_catalog.+) GREATEST(due_rows OPERATOR(pg_catalog.-) changed, 0::bigint),
            due.not_envelopes, target_only, deks, kms_seen, noticed, since) AS o;
        kms_seen := outcome.kms_seen;
        noticed := outcome.noticed;
        since := outcome.since;
        blocks := outcome.blocks;
        CALL envelope_internal.rotation_pause(p, outcome.pause);
        EXIT WHEN outcome.is_over;
    END LOOP;
    -- Before an error can undo it.
    COMMIT;
    PERFORM envelope_internal.rotation_end(run, p);
    COMMIT;
END
$$;

REVOKE ALL ON PROCEDURE envelope_internal.rotation_loop(bigint, jsonb) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE envelope_internal.rotation_loop(bigint, jsonb) TO envelope_rotate;

COMMENT ON PROCEDURE envelope_internal.rotation_loop(bigint, jsonb) IS
    'part of env_rotate: the batches of a run';
