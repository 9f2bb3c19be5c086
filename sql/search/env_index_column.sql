-- Batches of blocks, a transaction each: set to null, a token is made by the trigger, which has the rule. Nothing is written down,
-- as a row says itself whether its token is there: so a CALL that was stopped goes on where it was by the same CALL. A pass that
-- fills nothing is the last one. A row that cannot have a token is left alone, and is an error at the end.
CREATE OR REPLACE PROCEDURE @extschema@.env_index_column(relation regclass, token_column name, batch_blocks integer DEFAULT 64)
    LANGUAGE plpgsql AS $$
DECLARE
    token_rule record;
    leaf record;
    due text;
    blocks bigint;
    block bigint;
    changed bigint;
    in_pass bigint;
    live_version integer;
    row_tid tid;
    failed bigint;
    reason text;
    before bigint;
    batch text;
    set_null text;
    column_type text;
BEGIN
    SET LOCAL search_path = pg_catalog, pg_temp;
    PERFORM envelope_internal.refuse_null(jsonb_build_object(
        'relation', relation::oid, 'token_column', token_column, 'batch_blocks', batch_blocks));
    IF batch_blocks < 1 THEN
        RAISE 'batch_blocks must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- What fires for the rows runs with the rights of whoever runs the CALL.
    SELECT c.oid::regclass AS table, o.rolname AS owner INTO leaf
    FROM (SELECT relation::oid UNION SELECT l.leaf FROM envelope_internal.rotation_leaves(relation) AS l) AS t (oid)
    JOIN pg_class AS c ON c.oid = t.oid JOIN pg_roles AS o ON o.oid = c.relowner
    WHERE o.rolname <> current_user LIMIT 1;
    IF FOUND THEN
        RAISE 'must be the owner of table %', leaf.table USING ERRCODE = 'insufficient_privilege',
            HINT = format('SET ROLE %I, and grant that role envelope_rotate and envelope_search.', leaf.owner);
    END IF;
    SELECT r.rule ->> 'target' AS target, r.token INTO token_rule
    FROM envelope_internal.token_rules() AS r
    WHERE r.relation = env_index_column.relation AND r.token ->> 'column' = token_column;
    IF NOT FOUND THEN
        RAISE 'no trigger of % fills column "%"', relation, token_column USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Create the trigger of env_encrypt_trigger with the column in "tokens" first: it has the rule.';
    END IF;
    -- A column's NOT NULL is checked behind its triggers, that of a domain before.
    SELECT format_type(a.atttypid, a.atttypmod) INTO column_type FROM pg_attribute AS a
    WHERE a.attrelid = env_index_column.relation AND a.attname = token_column;
    BEGIN
        EXECUTE format('SELECT CAST(NULL AS %s)', column_type);
    EXCEPTION WHEN integrity_constraint_violation THEN
        RAISE 'column "%" cannot be filled: its type % allows no NULL', token_column, column_type
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'The trigger fills a token that is NULL, and a domain is checked before triggers.',
            HINT = 'Say NOT NULL for the column and not for its domain: that is checked behind triggers.';
    END;
    live_version := coalesce((token_rule.token ->> 'version')::integer,
        (SELECT max(k.version) FROM envelope_internal.index_key AS k WHERE k.name = token_rule.token ->> 'index'));
    due := format('%I IS NOT NULL AND %s', token_rule.target, CASE WHEN token_rule.token ->> 'kind' = 'prefix'
        THEN format('%I IS NULL', token_column)
        ELSE format('(%1$I IS NULL OR octet_length(%1$I) = 0 OR get_byte(%1$I, 0) <> %2$s)', token_column, live_version % 256) END);
    COMMIT;
    LOOP
        SET LOCAL search_path = pg_catalog, pg_temp;
        in_pass := 0;
        failed := 0;
        FOR leaf IN SELECT l.leaf FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r' LOOP
            SET LOCAL search_path = pg_catalog, pg_temp;
            blocks := pg_relation_size(leaf.leaf, 'main') / current_setting('block_size')::bigint;
            block := 0;
            WHILE block < blocks LOOP
                batch := format('ctid >= ''(%s,0)'' AND ctid < ''(%s,0)'' AND %s', block, least(block + batch_blocks, 4294967295), due);
                set_null := format('UPDATE ONLY %s SET %I = NULL WHERE ', leaf.leaf::regclass, token_column);
                BEGIN
                    EXECUTE set_null || batch;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                    changed := 0;
                    FOR row_tid IN EXECUTE format('SELECT ctid FROM ONLY %s WHERE %s', leaf.leaf::regclass, batch) LOOP
                        BEGIN
                            EXECUTE set_null || format('ctid = %L AND %s', row_tid, due);
                            changed := changed + 1;
                        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
                            failed := failed + 1;
                            reason := coalesce(reason, format('%s: %s (SQLSTATE %s)', row_tid, SQLERRM, SQLSTATE));
                        END;
                    END LOOP;
                END;
                in_pass := in_pass + changed;
                block := block + batch_blocks;
                COMMIT;
                SET LOCAL search_path = pg_catalog, pg_temp;
            END LOOP;
        END LOOP;
        EXIT WHEN in_pass = 0;
        IF in_pass >= before THEN
            RAISE 'the trigger does not fill column "%"', token_column USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'It may be disabled, or have a WHEN that is not true.';
        END IF;
        before := in_pass;
    END LOOP;
    IF failed > 0 THEN
        RAISE '% rows have no token', failed USING ERRCODE = 'data_exception', DETAIL = format('The first one is at %s.', reason),
            HINT = 'All others are filled. Mend these rows, and call it again.';
    END IF;
END
$$;

REVOKE ALL ON PROCEDURE @extschema@.env_index_column(regclass, name, integer) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE @extschema@.env_index_column(regclass, name, integer) TO envelope_rotate;

COMMENT ON PROCEDURE @extschema@.env_index_column(regclass, name, integer) IS
    'fill a token column of values that are encrypted already, by the rule of the trigger, in batches that commit';
