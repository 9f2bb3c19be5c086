-- The batches of a run on a distributed table. As in rotation_loop nothing is decided here. A batch is one distributed transaction
-- over a range of all shards, of about 0.7 s: a shorter one spends its time on commits in two phases. It takes no row that it would
-- have to wait for longer than 0.5 s; then, and where it fails, it is undone and done again in smaller parts, down to single rows.
-- What is known from the batches before, and from the blocks behind that were looked at for KMS, is changed first: the look at what
-- is in the range then finds few rows that are left.
CREATE OR REPLACE PROCEDURE envelope_internal.citus_loop(run bigint, p pg_catalog.jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    timed CONSTANT pg_catalog.jsonb := pg_catalog.jsonb_set(p, '{batch_seconds}', '0.7');
    skips CONSTANT boolean := pg_catalog.jsonb_extract_path_text(p, 'on_locked') OPERATOR(pg_catalog.=) 'skip'::pg_catalog.text;
    nothing CONSTANT pg_catalog.bytea[] := '{}';
    step pg_catalog.record;
    s pg_catalog.record;
    due pg_catalog.record;
    outcome pg_catalog.record;
    answer pg_catalog.record;
    failed pg_catalog.record;
    keys pg_catalog.text[];
    old_values pg_catalog.bytea[];
    new_values pg_catalog.bytea[];
    began pg_catalog.timestamptz;
    first_pass integer;
    blocks bigint := 1;
    leaf pg_catalog.oid;
    leaves pg_catalog.oid[];
    found envelope_internal.dek_counts;
    ahead envelope_internal.dek_counts;
    asked integer := 0;
    refused pg_catalog.bytea[] := '{}';
    retired pg_catalog.text[] := '{}';
    known pg_catalog.record;
    known_stubs pg_catalog.bytea[] := '{}';
    known_donors pg_catalog.bytea[] := '{}';
    known_deks pg_catalog.bytea[];
    known_changed bigint;
    refused_before pg_catalog.bytea[];
    from_place pg_catalog.text[];
    to_place pg_catalog.text[];
    to_block bigint;
    deks pg_catalog.bytea[];
    row_deks pg_catalog.bytea[];
    changed bigint;
    row_changed bigint;
    left_rows bigint;
    target_only bigint;
    is_undone boolean;
    takes_known boolean;
    triage pg_catalog.text;
    kms_seen bigint := 0;
    noticed pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    since pg_catalog.timestamptz := noticed;
BEGIN
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        -- Sent to the workers, for this transaction.
        SET LOCAL citus.propagate_set_commands = 'local';
        SET LOCAL jit = off;
        -- Else all but one to each worker are opened anew for each batch.
        SET LOCAL citus.max_cached_conns_per_worker = 16;
        IF skips THEN
            SET LOCAL lock_timeout = '500ms';
        END IF;
        began := pg_catalog.clock_timestamp();
        SELECT n.* INTO step FROM envelope_internal.rotation_next(run, p, blocks, 4096::bigint, first_pass, leaves) AS n;
        EXIT WHEN step.finished;
        leaves := step.leaves;
        first_pass := COALESCE(first_pass,
            CASE WHEN step.begins_pass THEN step.pass ELSE step.pass OPERATOR(pg_catalog.+) 1 END);
        IF step.begins_pass THEN
            refused := nothing;
            retired := '{}';
            known_stubs := nothing;
            PERFORM pg_catalog.pg_sleep(step.nap);
        END IF;
        IF leaf IS DISTINCT FROM step.leaf OR step.from_block OPERATOR(pg_catalog.=) 0::bigint THEN
            leaf := step.leaf;
            SELECT c.* INTO s FROM envelope_internal.citus_statements(leaf, p) AS c;
            from_place := NULL;
            IF s.form OPERATOR(pg_catalog.=) 'keys'::pg_catalog.text AND step.from_block OPERATOR(pg_catalog.>) 0::bigint THEN
                -- The key where it was is not written down. What is done is only read again.
                PERFORM envelope_internal.citus_restart(run);
                leaf := NULL;
                CONTINUE;
            END IF;
        END IF;
        to_block := step.to_block;
        IF s.form OPERATOR(pg_catalog.=) 'keys'::pg_catalog.text THEN
            EXECUTE s.bound_sql INTO to_place USING from_place, to_block OPERATOR(pg_catalog.-) step.from_block OPERATOR(pg_catalog.-) 1::bigint;
            to_block := envelope_internal.citus_last_block(run, to_block, to_place);
        ELSE
            from_place := ARRAY[CAST(step.from_tid AS pg_catalog.text)];
            to_place := ARRAY[CAST(step.to_tid AS pg_catalog.text)];
        END IF;
        changed := 0;
        deks := NULL;
        is_undone := false;
        refused_before := refused;
        takes_known := s.form OPERATOR(pg_catalog.=) 'blocks'::pg_catalog.text AND NOT s.is_adoption;
        IF takes_known AND known_stubs OPERATOR(pg_catalog.<>) nothing THEN
            SELECT k.* INTO known FROM envelope_internal.rotation_known(p, known_stubs, known_donors) AS k;
            known_stubs := known.stubs;
            known_donors := known.donors;
            BEGIN
                IF s.returns_stubs THEN
                    EXECUTE s.update_sql INTO changed, deks USING from_place, to_place, known_stubs, known_donors;
                    -- For the look behind to know them.
                    PERFORM envelope_internal.rotation_sealed(run, deks);
                ELSE
                    EXECUTE s.update_sql USING from_place, to_place, known_stubs, known_donors;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                triage := envelope_internal.rotation_triage(SQLSTATE);
                IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                    RAISE;
                END IF;
                is_undone := true;
                changed := 0;
                deks := NULL;
            END;
            IF is_undone AND step.to_block OPERATOR(pg_catalog.-) step.from_block OPERATOR(pg_catalog.>) 1::bigint THEN
                blocks := GREATEST(1::bigint, (step.to_block OPERATOR(pg_catalog.-) step.from_block) OPERATOR(pg_catalog./) 8::bigint);
                CONTINUE;
            ELSIF changed OPERATOR(pg_catalog.=) 0::bigint THEN
                -- Where there is mostly nothing to do a look is enough.
                known_stubs := nothing;
            END IF;
        END IF;
        known_changed := changed;
        known_deks := deks;
        EXECUTE s.scan_sql INTO found USING from_place, to_place;
        SELECT d.* INTO due
        FROM envelope_internal.rotation_due(run, p, step.pass, leaf, found, asked OPERATOR(pg_catalog.>) 0, refused, retired) AS d;
        refused := due.refused;
        PERFORM envelope_internal.citus_retire(retired, due.retired);
        retired := due.retired;
        IF due.missing OPERATOR(pg_catalog.<>) nothing THEN
            asked := asked OPERATOR(pg_catalog.+) 1;
            IF asked OPERATOR(pg_catalog.>) 3 THEN
                RAISE 'data keys of run % were wrapped and are not there', run USING ERRCODE = 'internal_error';
            END IF;
            IF changed OPERATOR(pg_catalog.>) 0::bigint THEN
                -- No row stays locked while KMS is asked. The rest of the batch comes next.
                SELECT o.* INTO outcome
                FROM envelope_internal.rotation_record(run, timed, began, step.from_block, step.from_block, changed, 0::bigint,
                    0::bigint, 0::bigint, deks, kms_seen, noticed, since) AS o;
                kms_seen := outcome.kms_seen;
                noticed := outcome.noticed;
                since := outcome.since;
                COMMIT;
                SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            END IF;
            EXECUTE s.scan_sql INTO ahead
                USING from_place, CASE s.form WHEN 'blocks' THEN ARRAY[CAST(step.ahead_tid AS pg_catalog.text)] END;
            SELECT a.* INTO answer FROM envelope_internal.rotation_ask(run, p, step.pass, leaf, ahead.stubs, refused) AS a;
            refused := answer.refused;
            IF answer.failure IS NOT NULL THEN
                COMMIT;
                PERFORM envelope_internal.rotation_raise(answer.failure);
            END IF;
            IF takes_known THEN
                -- What was asked for is known in all of these blocks. Rows are counted batch by batch.
                ahead.counts := pg_catalog.array_fill(0::bigint, ARRAY[pg_catalog.cardinality(ahead.stubs)]);
                ahead.strange := 0;
                SELECT d.* INTO due FROM envelope_internal.rotation_due(run, p, step.pass, leaf, ahead, true, refused, retired) AS d;
                refused := due.refused;
                PERFORM envelope_internal.citus_retire(retired, due.retired);
                retired := due.retired;
                IF due.missing OPERATOR(pg_catalog.=) nothing THEN
                    known_stubs := due.due[:1000];
                    known_donors := due.donors[:1000];
                END IF;
            END IF;
            CONTINUE;
        END IF;
        asked := 0;
        left_rows := 0;
        target_only := 0;
        is_undone := false;
        IF s.is_adoption OR due.due OPERATOR(pg_catalog.<>) nothing THEN
            BEGIN
                IF s.clear_sql IS NOT NULL THEN
                    PERFORM envelope_internal.rotation_verify(0::bigint, found.stubs, p);
                    EXECUTE s.clear_sql USING from_place, to_place, due.due;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                END IF;
                IF s.compute_sql IS NOT NULL THEN
                    EXECUTE s.compute_sql INTO keys, old_values, new_values USING from_place, to_place, due.due;
                    EXECUTE s.apply_sql USING keys, old_values, new_values;
                    GET DIAGNOSTICS row_changed = ROW_COUNT;
                    deks := envelope_internal.citus_stubs(new_values);
                ELSIF s.returns_stubs THEN
                    EXECUTE s.update_sql INTO row_changed, row_deks USING from_place, to_place, due.due, due.donors;
                    deks := pg_catalog.array_cat(deks, row_deks);
                ELSE
                    EXECUTE s.update_sql USING from_place, to_place, due.due, due.donors;
                    GET DIAGNOSTICS row_changed = ROW_COUNT;
                END IF;
                changed := changed OPERATOR(pg_catalog.+) row_changed;
                IF takes_known THEN
                    -- What was replaced in between may be out of the range by now.
                    left_rows := GREATEST(due.due_rows OPERATOR(pg_catalog.-) row_changed, 0::bigint);
                    IF known_stubs OPERATOR(pg_catalog.=) nothing THEN
                        known_stubs := due.due;
                        known_donors := due.donors;
                    ELSIF pg_catalog.cardinality(known_stubs) OPERATOR(pg_catalog.<) 1000 THEN
                        known_stubs := pg_catalog.array_cat(known_stubs, due.due);
                        known_donors := pg_catalog.array_cat(known_donors, due.donors);
                    END IF;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                triage := envelope_internal.rotation_triage(SQLSTATE);
                IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                    RAISE;
                END IF;
                is_undone := true;
                failed := ROW(SQLSTATE, SQLERRM);
                changed := known_changed;
                deks := known_deks;
            END;
        END IF;
        IF is_undone AND step.to_block OPERATOR(pg_catalog.-) step.from_block OPERATOR(pg_catalog.>) 1::bigint THEN
            -- The failures that were counted here, too: they are counted again in the smaller parts.
            ROLLBACK;
            refused := refused_before;
            known_stubs := nothing;
            blocks := GREATEST(1::bigint, (step.to_block OPERATOR(pg_catalog.-) step.from_block) OPERATOR(pg_catalog./) 8::bigint);
            CONTINUE;
        END IF;
        IF is_undone AND s.row_sql IS NULL THEN
            IF triage OPERATOR(pg_catalog.=) 'later'::pg_catalog.text THEN
                left_rows := 1;
            ELSE
                PERFORM envelope_internal.rotation_fail(run, leaf, NULL::pg_catalog.tid, NULL::pg_catalog.bytea, 1::bigint, failed.f1, failed.f2);
            END IF;
        ELSIF is_undone THEN
            FOR answer IN EXECUTE s.rows_sql USING from_place, to_place, due.due LOOP
                BEGIN
                    row_deks := NULL;
                    IF s.returns_stubs THEN
                        EXECUTE s.row_sql INTO row_changed, row_deks
                            USING answer.place, answer.next_place, due.due, due.donors, answer.value;
                    ELSE
                        EXECUTE s.row_sql USING answer.place, answer.next_place, due.due, due.donors, answer.value;
                        GET DIAGNOSTICS row_changed = ROW_COUNT;
                    END IF;
                    changed := changed OPERATOR(pg_catalog.+) row_changed;
                    deks := pg_catalog.array_cat(deks, row_deks);
                EXCEPTION WHEN OTHERS THEN
                    triage := envelope_internal.rotation_triage(SQLSTATE);
                    IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                        RAISE;
                    ELSIF triage OPERATOR(pg_catalog.=) 'row'::pg_catalog.text THEN
                        PERFORM envelope_internal.rotation_fail(run, leaf, CAST(answer.place[1] AS pg_catalog.tid), NULL::pg_catalog.bytea,
                            1::bigint, SQLSTATE, SQLERRM);
                    ELSE
                        left_rows := left_rows OPERATOR(pg_catalog.+) 1::bigint;
                    END IF;
                END;
            END LOOP;
        END IF;
        IF s.target_only_sql IS NOT NULL THEN
            EXECUTE s.target_only_sql INTO target_only USING from_place, to_place;
        END IF;
        SELECT o.* INTO outcome
        FROM envelope_internal.rotation_record(run, timed, began, step.from_block, to_block, changed, left_rows,
            due.not_envelopes, target_only, deks, kms_seen, noticed, since) AS o;
        kms_seen := outcome.kms_seen;
        noticed := outcome.noticed;
        since := outcome.since;
        blocks := outcome.blocks;
        from_place := to_place;
        CALL envelope_internal.rotation_pause(p, outcome.pause);
        EXIT WHEN outcome.is_over;
    END LOOP;
    COMMIT;
    PERFORM envelope_internal.rotation_end(run, p);
    COMMIT;
END
$$;

-- Where the range of form 'keys' ends, in rows: at the last one if no key was found behind it.
CREATE OR REPLACE FUNCTION envelope_internal.citus_last_block(run bigint, to_block bigint, to_place text[]) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
    SELECT CASE WHEN to_place IS NULL THEN greatest(to_block, r.leaf_blocks)
                -- More rows than were counted: the last range takes what there is.
                ELSE least(to_block, greatest(r.next_block, r.leaf_blocks - 1)) END
    FROM envelope_internal.rotation_run AS r WHERE r.run_id = run
$$;

CREATE OR REPLACE FUNCTION envelope_internal.citus_restart(run bigint) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
    UPDATE envelope_internal.rotation_run AS r SET blocks_done = r.blocks_done - r.next_block, next_block = 0 WHERE r.run_id = run
$$;

-- One for each data key.
CREATE OR REPLACE FUNCTION envelope_internal.citus_stubs("values" bytea[]) RETURNS bytea[]
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(DISTINCT envelope_internal.dek_stub(value)) FROM unnest("values") AS value
$$;

REVOKE ALL ON PROCEDURE envelope_internal.citus_loop(bigint, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION
    envelope_internal.citus_last_block(bigint, bigint, text[]), envelope_internal.citus_restart(bigint), envelope_internal.citus_stubs(bytea[])
    FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE envelope_internal.citus_loop(bigint, jsonb) TO envelope_rotate;
GRANT EXECUTE ON FUNCTION
    envelope_internal.citus_last_block(bigint, bigint, text[]), envelope_internal.citus_restart(bigint), envelope_internal.citus_stubs(bytea[])
    TO envelope_rotate;

COMMENT ON PROCEDURE envelope_internal.citus_loop(bigint, jsonb) IS
    'part of env_rotate on Citus: the batches of a run';
COMMENT ON FUNCTION envelope_internal.citus_last_block(bigint, bigint, text[]) IS
    'part of env_rotate on Citus: where a range of keys ends';
COMMENT ON FUNCTION envelope_internal.citus_restart(bigint) IS
    'part of env_rotate on Citus: begin a table again';
COMMENT ON FUNCTION envelope_internal.citus_stubs(bytea[]) IS
    'part of env_rotate on Citus: the data keys of values';
