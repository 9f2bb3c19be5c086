-- Checks everything that can be known at the start, takes the run's lock, and finds the run that this CALL resumes or
-- makes a new one.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_begin(p jsonb) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on SET jit = off AS $$
DECLARE
    root oid := (p ->> 'relation')::oid;
    rotated name := p ->> 'column';
    wanted jsonb := p - ARRAY['batch_blocks', 'on_locked', 'max_rows_per_second', 'max_passes', 'max_failures', 'deadline',
        'max_lag_seconds', 'max_slot_bytes'];
    method text := p ->> 'method';
    class pg_class;
    attribute pg_attribute;
    member record;
    holds_values boolean;
    run envelope_internal.rotation_run;
    lock_key bigint;
    foreign_leaves bigint;
    named name;
    stub bytea;
    type_name text;
BEGIN
    -- Those without a default of null; the others say "env:null".
    PERFORM envelope_internal.refuse_null(
        jsonb_build_object('relation', root, 'method', p -> 'method', 'on_locked', p -> 'on_locked',
                           'max_passes', p -> 'max_passes', 'max_failures', p -> 'max_failures')
        || CASE WHEN p ?| ARRAY['source', 'clear_source', 'context']
            THEN jsonb_build_object('source_column', p -> 'source', 'target_column', p -> 'column', 'clear_source', p -> 'clear_source')
            ELSE jsonb_build_object('column_name', p -> 'column', 'to_key', p -> 'to_key') END
        || CASE method WHEN 'encrypt' THEN jsonb_build_object('key_id', p -> 'to_key', 'encryption_context', p -> 'context') ELSE '{}' END
        || (SELECT coalesce(jsonb_object_agg(key, NULL::text), '{}') FROM jsonb_each_text(p) WHERE value = 'env:null'));
    PERFORM envelope_internal.citus_refuse_shard(root);
    SELECT * INTO class FROM pg_class WHERE oid = root;
    IF NOT FOUND THEN
        RAISE 'relation must be a table' USING ERRCODE = 'undefined_table';
    END IF;
    IF class.relkind NOT IN ('r', 'p') THEN
        RAISE '% is not a table', root::regclass USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the table itself, not a view or a foreign table.';
    END IF;
    IF method NOT IN ('rewrap', 'reencrypt', 'encrypt', 'decrypt') OR (p ? 'source') <> (method IN ('encrypt', 'decrypt')) THEN
        RAISE 'unknown method' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The methods are rewrap and reencrypt.';
    END IF;
    IF (p ->> 'on_locked') NOT IN ('skip', 'wait') THEN
        RAISE 'unknown value of on_locked' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The values are skip and wait.';
    END IF;
    IF (p ->> 'batch_blocks')::bigint < 1 OR (p ->> 'max_rows_per_second')::numeric <= 0
        OR (p ->> 'max_passes')::bigint < 1 OR (p ->> 'max_failures')::bigint < 0 THEN
        RAISE 'limits of a run must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF method <> 'decrypt' THEN
        -- Says what is wrong with a key id, and asks nobody.
        PERFORM envelope_internal.rewrap_target(p ->> 'to_key');
    END IF;
    IF (p ->> 'from_key') !~ '^(local:|arn:[^:]+:kms:[^:]+:[0-9]+:key/)' THEN
        RAISE 'invalid from_key' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give it as env_key_id shows it: a key ARN or local:name, not an alias.';
    END IF;
    IF p ? 'aad_column' AND p ? 'aad_expression' THEN
        RAISE 'aad_column and aad_expression exclude each other' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH named IN ARRAY array_remove(ARRAY[rotated, p ->> 'source', p ->> 'target', p ->> 'aad_column']::name[], NULL)
    LOOP
        SELECT * INTO attribute FROM pg_attribute
        WHERE attrelid = root AND attname = named AND attnum > 0 AND NOT attisdropped;
        IF NOT FOUND THEN
            RAISE 'column "%" of relation % does not exist', named, root::regclass USING ERRCODE = 'undefined_column';
        END IF;
    END LOOP;
    IF rotated = p ->> 'source' THEN
        RAISE 'source and target are the same column "%"', rotated USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Add a column for the target.';
    END IF;
    SELECT * INTO STRICT attribute FROM pg_attribute WHERE attrelid = root AND attname = rotated AND NOT attisdropped;
    FOREACH named IN ARRAY array_remove(ARRAY[p ->> 'source', rotated, p ->> 'target']::name[], NULL) LOOP
        SELECT format_type(a.atttypid, a.atttypmod) INTO type_name FROM pg_attribute AS a
        WHERE a.attrelid = root AND a.attname = named AND NOT a.attisdropped;
        IF named = (CASE method WHEN 'decrypt' THEN p ->> 'source' ELSE rotated END)
            AND envelope_internal.rotation_type(root, named) IS DISTINCT FROM 'bytea' THEN
            RAISE 'column "%" of % is %; an encrypted column is bytea', named, root::regclass, type_name
                USING ERRCODE = 'datatype_mismatch', HINT = 'env_inventory_columns() lists the columns that can hold encrypted values.';
        ELSIF envelope_internal.rotation_type(root, named) IS NULL THEN
            RAISE 'column "%" of % is %, which cannot be encrypted', named, root::regclass, type_name
                USING ERRCODE = 'datatype_mismatch',
                HINT = 'Plaintext is of any type but money, those of names (regclass, ...) and pseudo-types.';
        END IF;
    END LOOP;
    IF attribute.attgenerated <> '' THEN
        RAISE 'column "%" of relation % is generated', rotated, root::regclass USING ERRCODE = 'generated_always',
            HINT = CASE attribute.attgenerated WHEN 'v' THEN 'Name the column that it is computed from.'
                ELSE 'UPDATE the table: that computes the column again, after env_rotate_dek(key_id) under a new data key.' END;
    END IF;
    IF (p ->> 'clear_source')::boolean AND EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = root AND attname = p ->> 'source' AND (attnotnull OR attgenerated <> '')) THEN
        RAISE 'column "%" of relation % cannot be cleared', p ->> 'source', root::regclass
            USING ERRCODE = 'not_null_violation', HINT = 'ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL first.';
    END IF;
    FOR member IN SELECT root AS leaf UNION SELECT leaf FROM envelope_internal.rotation_leaves(root) WHERE kind = 'r' LOOP
        PERFORM envelope_internal.rotation_rights(member.leaf, p);
    END LOOP;
    SELECT l.leaf::regclass AS leaf, m.* INTO member
    FROM envelope_internal.rotation_leaves(root) AS l, envelope_internal.rotation_moves(l.leaf, rotated) AS m
    WHERE m.source = CASE method WHEN 'encrypt' THEN p ->> 'source' ELSE rotated::text END
      AND NOT (method = 'encrypt' AND (p ->> 'clear_source')::boolean AND m.target = rotated)
    LIMIT 1;
    IF FOUND AND method IN ('encrypt', 'decrypt') THEN
        RAISE 'trigger "%" of % moves the plaintext that is to stay', member.trigger, member.leaf
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('It sets "%s" to null, and encrypts it into "%s".', member.source, member.target),
            HINT = CASE WHEN method = 'encrypt' AND member.target = rotated
                THEN 'Have the application read the encrypted column, and give clear_source => true.'
                ELSE 'Drop or disable the trigger.' END;
    END IF;
    IF method = 'encrypt' AND envelope_internal.rotation_type(root, (p ->> 'source')::name) = 'bytea'
        AND NOT current_setting('envelope_pg.allow_double_encryption')::boolean THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM (SELECT %1$I AS value FROM %2$s WHERE %1$I IS NOT NULL LIMIT 100) AS s
                                       WHERE envelope_internal.is_envelope(value))', p ->> 'source', root::regclass)
            INTO holds_values;
        IF holds_values THEN
            RAISE 'column "%" of relation % holds encrypted values', p ->> 'source', root::regclass
                USING ERRCODE = 'invalid_parameter_value',
                HINT = 'env_rotate brings them under another key (rewrap) or new data keys (reencrypt). To encrypt them again on purpose, '
                    'SET envelope_pg.allow_double_encryption = on.';
        END IF;
    END IF;
    IF method = 'encrypt' THEN
        -- Before there is a run: whether the key may be used, and the context is one.
        PERFORM envelope_internal.encrypt(''::text, p ->> 'to_key', (p ->> 'context')::jsonb);
    END IF;
    PERFORM envelope_internal.citus_check(root, p);
    PERFORM envelope_internal.rotation_try(root, p);
    lock_key := envelope_internal.rotation_lock_key(root, attribute.attnum);
    IF NOT envelope_internal.rotation_lock(lock_key) THEN
        RAISE 'another run works on column "%" of relation %', rotated, root::regclass
            USING ERRCODE = 'object_in_use', HINT = 'See SELECT * FROM env_rotation.';
    END IF;
    SELECT * INTO run FROM envelope_internal.rotation_run AS r
    WHERE r.relation = root AND r.column_number = attribute.attnum AND r.status = 'open';
    IF NOT FOUND THEN
        -- With the same parameters the last run goes on where rows failed; with others there is a new one.
        SELECT * INTO run FROM envelope_internal.rotation_run AS r
        WHERE r.run_id = (SELECT max(s.run_id) FROM envelope_internal.rotation_run AS s WHERE s.relation = root AND s.column_number = attribute.attnum)
          AND r.status = 'failed rows' AND r.parameters = wanted;
    END IF;
    IF FOUND AND ((run.pass <= 1 AND run.rows_done = 0 AND run.failures = 0 AND run.parameters <> wanted)
                  OR (run.started_by <> current_user AND run.method = method AND run.parameters = wanted)) THEN
        -- It failed before it did anything: there is nothing to resume. Or another role says how far it has come.
        UPDATE envelope_internal.rotation_run AS r SET status = 'abandoned', finished = clock_timestamp() WHERE r.run_id = run.run_id;
        IF run.started_by <> current_user THEN
            RAISE NOTICE 'run % of role % is given up: this one begins anew', run.run_id, run.started_by;
        END IF;
    ELSIF FOUND AND (run.method <> method OR run.parameters <> wanted) THEN
        RAISE 'run % of this column is not finished, and is another one', run.run_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
            -- Not what the other one was given: whoever began it chose that, and an expression of his would run as the caller.
            DETAIL = format('Role %s began it. These differ: %s.', run.started_by, (
                SELECT string_agg(key, ', ' ORDER BY key)
                FROM (SELECT key FROM jsonb_each(run.parameters || wanted)) AS k
                WHERE run.parameters -> key IS DISTINCT FROM wanted -> key)),
            HINT = format('SELECT env_rotation_abandon(%s) gives it up%s.', run.run_id,
                CASE WHEN run.started_by = current_user THEN ', and the parameters that it began with resume it' ELSE '' END);
    ELSIF FOUND THEN
        UPDATE envelope_internal.rotation_run AS r SET status = 'open' WHERE r.run_id = run.run_id AND r.status = 'failed rows';
        RAISE NOTICE 'run % resumes: pass %, % of % blocks, % rows done',
            run.run_id, run.pass, run.blocks_done, run.blocks_total, run.rows_done;
        RETURN run.run_id;
    END IF;
    IF (p ->> 'batch_blocks')::bigint < 4 AND pg_relation_size(root) > 1000 * current_setting('block_size')::bigint THEN
        RAISE WARNING 'batches of % blocks take many times as long as those of a tenth of a second', p ->> 'batch_blocks'
            USING HINT = 'Leave batch_blocks out, or CALL again with another one.';
    END IF;
    SELECT count(*) INTO foreign_leaves FROM envelope_internal.rotation_leaves(root) WHERE kind = 'f';
    IF foreign_leaves > 0 THEN
        RAISE WARNING '% foreign partitions of % are left alone', foreign_leaves, root::regclass
            USING HINT = 'Rotate them on their own servers.';
    END IF;
    INSERT INTO envelope_internal.rotation_run
        (relation, column_number, relation_name, column_name, method, parameters, lock_key, rows_estimated)
    SELECT root, attribute.attnum, root::regclass::text, rotated, method, wanted, lock_key,
           coalesce(sum(CASE WHEN reltuples >= 0 THEN reltuples ELSE pg_stat_get_live_tuples(leaf) END), 0)
    FROM envelope_internal.rotation_leaves(root) JOIN pg_class ON pg_class.oid = leaf WHERE kind = 'r'
    RETURNING * INTO run;
    IF method = 'reencrypt' THEN
        -- Data keys that were made before may be the reason for the run. For all sessions: they write to the column, too.
        PERFORM envelope_internal.rotate_dek(p ->> 'to_key');
        PERFORM envelope_internal.citus_rotate_dek(root, p ->> 'to_key');
        -- What keeps the new data key from being made ends the CALL before there is a run.
        FOR member IN
            SELECT leaf FROM envelope_internal.rotation_leaves(root) WHERE kind = 'r' AND envelope_internal.citus_form(root) IS NULL LIMIT 10
        LOOP
            EXECUTE format('SELECT envelope_internal.dek_stub(t.%1$I) FROM ONLY %2$s AS t WHERE envelope_internal.is_envelope(t.%1$I) LIMIT 1',
                rotated, member.leaf::regclass) INTO stub;
            CONTINUE WHEN stub IS NULL;
            BEGIN
                PERFORM envelope_internal.reencrypt_warm(ARRAY[stub], NULL::text);
            EXCEPTION WHEN OTHERS THEN
                -- That is for its values to say.
                CONTINUE;
            END;
            PERFORM envelope_internal.reencrypt_warm(ARRAY[stub], p ->> 'to_key');
            EXIT;
        END LOOP;
    END IF;
    RAISE NOTICE 'run % begins: % of column "%" of %', run.run_id, method, rotated, root::regclass;
    RETURN run.run_id;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_begin(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_begin(jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_begin(jsonb) IS
    'part of env_rotate: check, lock, and find or make the run';
