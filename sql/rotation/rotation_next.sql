-- Where the next batch is: the rest of the table, the next table of the tree, the next pass, or nowhere. first_pass is the first
-- one that this CALL does from its beginning; NULL before its first batch.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_next(
    run bigint, p jsonb, blocks bigint, ahead bigint, first_pass integer, INOUT leaves oid[],
    OUT finished boolean, OUT pass integer, OUT leaf oid, OUT from_block bigint, OUT to_block bigint,
    OUT from_tid tid, OUT to_tid tid, OUT ahead_tid tid, OUT begins_pass boolean, OUT nap double precision,
    OUT scan_sql text, OUT count_sql text, OUT tids_sql text, OUT quick_sql text, OUT quick_verifies boolean, OUT update_sql text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    r envelope_internal.rotation_run;
    recorded envelope_internal.rotation_run;
    next_leaf oid;
    place oid;
BEGIN
    SELECT * INTO r FROM envelope_internal.rotation_run AS s
    WHERE s.run_id = run AND s.relation = (p ->> 'relation')::oid AND s.column_name = p ->> 'column' FOR UPDATE;
    recorded := r;
    IF NOT FOUND OR r.status <> 'open' THEN
        -- The record is hidden from whoever has lost the right to write it.
        IF NOT has_column_privilege((p ->> 'relation')::oid, p ->> 'column', 'UPDATE') THEN
            PERFORM envelope_internal.rotation_rights((p ->> 'relation')::oid, p);
        END IF;
        RAISE 'run % is not an open one of this column', run USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF NOT envelope_internal.rotation_hold(r.relation, r.relation) THEN
        RAISE 'relation % is gone', r.relation_name USING ERRCODE = 'undefined_table';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = r.relation AND attnum = r.column_number
                   AND attname = r.column_name AND NOT attisdropped) THEN
        RAISE 'column "%" of relation % is gone or renamed', r.column_name, r.relation_name
            USING ERRCODE = 'undefined_column', HINT = 'Give a renamed column its name back to resume the run.';
    END IF;
    finished := false;
    begins_pass := false;
    nap := 0;
    IF r.failures > (p ->> 'max_failures')::bigint THEN
        IF first_pass IS NOT NULL THEN
            PERFORM envelope_internal.rotation_give_up(run, format('run %s stops: %s rows failed in this pass', run, r.failures),
                'data_exception', 'Mend the cause, or raise max_failures; the same CALL resumes the run.');
        END IF;
        -- What it stopped for may have been mended: none of its rows is left out.
        r.leaf := 4294967295;
        r.leaf_blocks := 0;
    END IF;
    IF r.pass > 0 AND r.next_block > 0 AND r.next_block >= r.leaf_blocks AND envelope_internal.citus_form(r.leaf) IS NOT NULL THEN
        -- Of a distributed table this is known at the end only: what has moved meanwhile may have gone past the run.
        SELECT e.place INTO place FROM envelope_internal.citus_extent(r.leaf) AS e;
        IF place <> r.leaf_file THEN
            r.leaf_file := place;
            r.pass_left := r.pass_left + 1;
        END IF;
    END IF;
    WHILE r.leaf = 0 OR r.next_block >= r.leaf_blocks OR r.pass = 0
        OR (r.leaf <> r.relation AND NOT envelope_internal.rotation_hold(r.relation, r.leaf))
    LOOP
        -- Those that are left, in order. To walk the tree for each of thousands of tables would take longer than they do.
        IF r.pass = 0 OR coalesce(leaves[1] <= r.leaf, true) THEN
            leaves := ARRAY(SELECT l.leaf FROM envelope_internal.rotation_leaves(r.relation) AS l
                            WHERE l.kind = 'r' AND l.leaf > r.leaf AND r.pass > 0 ORDER BY l.leaf);
        END IF;
        next_leaf := leaves[1];
        leaves := leaves[2:];
        IF next_leaf IS NOT NULL THEN
            r.leaf := next_leaf;
            r.next_block := 0;
            SELECT e.blocks, e.place INTO r.leaf_blocks, r.leaf_file FROM envelope_internal.rotation_extent(next_leaf) AS e;
        ELSIF r.pass > 0 AND r.pass_changed = 0 AND r.pass_left = 0
            -- Done is what this CALL has seen from the first block to the last. In slices, to which a whole pass may be too long, the
            -- record of the slices before counts, too, which only the role that runs them can have written.
            AND (r.pass >= first_pass OR (p ? 'deadline' AND r.failures = 0)) THEN
            finished := true;
            UPDATE envelope_internal.rotation_run AS s
            SET status = CASE r.failures WHEN 0 THEN 'done' ELSE 'failed rows' END,
                finished = clock_timestamp(), updated = clock_timestamp()
            WHERE s.run_id = run;
            PERFORM envelope_internal.rotation_donors_drop();
            RETURN;
        ELSIF r.pass > 0 AND r.pass + 1 - first_pass >= (p ->> 'max_passes')::integer THEN
            finished := true;
            RETURN;
        ELSE
            begins_pass := true;
            -- Nothing but locked rows: give them a moment.
            nap := CASE WHEN r.pass > 0 AND r.pass_changed = 0 AND r.pass_left > 0 THEN 1 ELSE 0 END;
            r.pass := r.pass + 1;
            first_pass := coalesce(first_pass, r.pass);
            r.leaf := 0;
            r.pass_changed := 0;
            r.pass_left := 0;
            r.not_envelopes := 0;
            r.target_only := 0;
            r.failures := 0;
            r.blocks_done := 0;
            r.pass_seconds := 0;
            r.pass_blocks := 0;
            SELECT coalesce(sum((envelope_internal.rotation_extent(l.leaf)).blocks), 0) INTO r.blocks_total
            FROM envelope_internal.rotation_leaves(r.relation) AS l WHERE l.kind = 'r';
            DELETE FROM envelope_internal.rotation_failure AS f WHERE f.run_id = run;
            IF NOT EXISTS (SELECT FROM envelope_internal.rotation_leaves(r.relation) AS l WHERE l.kind = 'r') THEN
                finished := true;
                UPDATE envelope_internal.rotation_run AS s
                SET status = 'done', pass = r.pass, finished = clock_timestamp(), updated = clock_timestamp()
                WHERE s.run_id = run;
                RETURN;
            END IF;
        END IF;
    END LOOP;
    IF r.leaf_file <> pg_relation_filenode(r.leaf) AND envelope_internal.citus_form(r.leaf) IS NULL THEN
        -- Another table, or one whose rows VACUUM FULL, CLUSTER or pg_repack has moved: block numbers mean nothing any more.
        r.blocks_done := r.blocks_done - r.next_block;
        r.next_block := 0;
        r.leaf_blocks := pg_relation_size(r.leaf, 'main') / current_setting('block_size')::bigint;
        r.leaf_file := pg_relation_filenode(r.leaf);
    END IF;
    PERFORM envelope_internal.rotation_rights(r.leaf, p);
    IF r IS DISTINCT FROM recorded THEN
        UPDATE envelope_internal.rotation_run AS s
        SET pass = r.pass, leaf = r.leaf, leaf_file = r.leaf_file, leaf_blocks = r.leaf_blocks, next_block = r.next_block,
            pass_changed = r.pass_changed, pass_left = r.pass_left, not_envelopes = r.not_envelopes,
            target_only = r.target_only, failures = r.failures, blocks_done = r.blocks_done, blocks_total = r.blocks_total,
            pass_seconds = r.pass_seconds, pass_blocks = r.pass_blocks
        WHERE s.run_id = run;
    END IF;
    pass := r.pass;
    leaf := r.leaf;
    from_block := r.next_block;
    to_block := least(r.next_block + blocks, r.leaf_blocks);
    from_tid := format('(%s,0)', from_block)::tid;
    to_tid := format('(%s,0)', to_block)::tid;
    ahead_tid := format('(%s,0)', least(greatest(from_block + ahead, to_block), r.leaf_blocks))::tid;
    SELECT s.scan_sql, s.count_sql, s.tids_sql, s.quick_sql, s.quick_verifies, s.update_sql
    INTO scan_sql, count_sql, tids_sql, quick_sql, quick_verifies, update_sql
    FROM envelope_internal.rotation_statements(leaf, p) AS s;
END
$$;

-- The blocks of a table, and where they are: block numbers mean nothing any more when that changes.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_extent(leaf oid, OUT blocks bigint, OUT bytes bigint, OUT place oid)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF envelope_internal.citus_form(leaf) IS NULL THEN
        bytes := pg_relation_size(leaf, 'main');
        blocks := bytes / current_setting('block_size')::bigint;
        place := pg_relation_filenode(leaf);
    ELSE
        SELECT e.* INTO blocks, bytes, place FROM envelope_internal.citus_extent(leaf) AS e;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_extent(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_extent(oid) TO envelope_rotate;
REVOKE ALL ON FUNCTION envelope_internal.rotation_next(bigint, jsonb, bigint, bigint, integer, oid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_next(bigint, jsonb, bigint, bigint, integer, oid[]) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_next(bigint, jsonb, bigint, bigint, integer, oid[]) IS
    'part of env_rotate: where the next batch is';
COMMENT ON FUNCTION envelope_internal.rotation_extent(oid) IS
    'part of env_rotate: the blocks of a table, and where they are';
