-- The statements of a batch, for one table. They run under the caller's search_path, as triggers of the table must, so
-- every name and operator in them says its schema.
--   $1, $2  the first tid and the one behind the last      $3  stubs of the data keys to change; encrypt: to leave alone
--   $4  rewrap: donors of their new wrapped keys, in the same order
CREATE OR REPLACE FUNCTION envelope_internal.rotation_statements(
    leaf oid, p jsonb,
    OUT scan_sql text, OUT count_sql text, OUT tids_sql text, OUT quick_sql text, OUT quick_verifies boolean, OUT update_sql text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    method text := p ->> 'method';
    changed text := quote_ident(p ->> 'column');
    source text := quote_ident(p ->> 'source');
    clears boolean := coalesce((p ->> 'clear_source')::boolean, false);
    in_range text := 't.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2';
    aad text := CASE
        WHEN p ? 'aad_column' THEN format(', CAST(t.%I AS pg_catalog.text)', p ->> 'aad_column')
        WHEN p ? 'aad_expression' THEN ', CAST((' || (p ->> 'aad_expression') || ') AS pg_catalog.text)'
        ELSE '' END;
    conversion record;
    relation text;
    stub_of text := changed;
    due text;
    -- Without what can fail for a row.
    candidate text;
    new_value text;
    result text;
    row_name text := 'env_row';
    tid_name text := 'env_tid';
    source_name text := 'env_source';
    closing_sql text;
BEGIN
    SELECT format('%I.%I', nspname, relname) INTO relation
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = leaf;
    IF NOT FOUND THEN
        RAISE 'a table of the run is gone' USING ERRCODE = 'undefined_table';
    END IF;
    -- An aad_expression names columns of the table, which can be called anything.
    WHILE EXISTS (SELECT FROM pg_attribute WHERE attrelid = leaf AND attname IN (row_name, tid_name, source_name)) LOOP
        row_name := row_name || '_';
        tid_name := tid_name || '_';
        source_name := source_name || '_';
    END LOOP;
    IF method IN ('rewrap', 'reencrypt') THEN
        due := 'envelope_internal.is_of_any(t.' || changed || ', $3)';
        -- A trigger may have put the old value back.
        IF method = 'rewrap' THEN
            new_value := 'envelope_internal.splice_any(t.' || changed || ', $3, $4)';
            result := 'CAST(NULL AS pg_catalog.bytea), ' || due || ' IS NOT TRUE';
        ELSE
            new_value := 'envelope_internal.reencrypt(t.' || changed || ', ' || quote_literal(p ->> 'to_key') || aad || ')';
            result := 't.' || changed || ', ' || due || ' IS NOT TRUE';
        END IF;
    ELSIF method = 'encrypt' THEN
        SELECT * INTO conversion FROM envelope_internal.rotation_conversion(leaf, (p ->> 'source')::name);
        due := 'envelope_internal.opens_to(t.' || changed || ', ' || format(conversion.to_plaintext, 't.' || source) || aad || ')';
        new_value := 'CASE WHEN ' || due || ' IS TRUE THEN t.' || changed
            || ' ELSE envelope_internal.encrypt(' || format(conversion.to_plaintext, 't.' || source) || ', '
            || quote_literal(p ->> 'to_key')
            || ', CAST(' || quote_literal(p ->> 'context') || ' AS pg_catalog.jsonb)' || aad || ') END';
        result := CASE WHEN clears THEN 't.' || changed ELSE 'CAST(NULL AS pg_catalog.bytea)' END || ', envelope_internal.opens_to(t.' || changed || ', '
            || format(conversion.to_plaintext, row_name || '.' || source_name) || aad || ')';
    ELSE
        SELECT * INTO conversion FROM envelope_internal.rotation_conversion(leaf, (p ->> 'column')::name);
        stub_of := source;
        due := 'envelope_internal.opens_to(t.' || source || ', ' || format(conversion.to_plaintext, 't.' || changed) || aad || ')';
        new_value := format(conversion.from_plaintext, 'envelope_internal.decrypt'
            || CASE conversion.value_type WHEN 'text' THEN '' ELSE '_' || conversion.value_type END || '(t.' || source || aad || ')');
        result := 'CAST(NULL AS pg_catalog.bytea), envelope_internal.opens_to(' || row_name || '.' || source_name || ', '
            || format(conversion.to_plaintext, 't.' || changed) || aad || ')';
    END IF;
    IF source IS NOT NULL THEN
        -- First whether the data key is refused: then the value cannot be compared with the plaintext. Without a value there is
        -- nothing to refuse.
        candidate := 't.' || source || ' IS NOT NULL AND envelope_internal.is_of_any(t.' || stub_of || ', $3) IS '
            || CASE method WHEN 'encrypt' THEN 'NOT TRUE' ELSE 'TRUE' END;
        due := 'CASE WHEN ' || candidate || ' THEN '
            || CASE WHEN clears THEN 'true' ELSE '(' || due || ') IS NOT TRUE' END || ' ELSE false END';
    END IF;
    scan_sql := 'SELECT (s.found).stubs, (s.found).counts, (s.found).strange FROM (
            SELECT envelope_internal.count_deks(t.' || stub_of || ') AS found FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND t.' || stub_of || ' IS NOT NULL'
                || coalesce(' AND t.' || source || ' IS NOT NULL', '') || ') AS s';
    IF source IS NOT NULL THEN
        -- If the source is cleared, all targets are the only one.
        count_sql := 'SELECT pg_catalog.count(*) FILTER (WHERE ' || due || '), pg_catalog.count(*) FILTER (WHERE '
            || CASE WHEN clears THEN 'false' ELSE 't.' || source || ' IS NULL AND t.' || changed || ' IS NOT NULL' END
            || ') FROM ONLY ' || relation || ' AS t WHERE ' || in_range;
    END IF;
    tids_sql := 'SELECT pg_catalog.array_agg(t.ctid) FROM ONLY ' || relation || ' AS t WHERE ' || in_range || ' AND ' || coalesce(candidate, due);
    -- Whatever was committed since the snapshot of this statement is locked in its newest version, which the outer scan
    -- does not see: it is left for the next pass. So what is changed is what was read, and nobody's update is lost.
    update_sql := 'WITH ' || row_name || ' AS MATERIALIZED (
            SELECT t.ctid AS ' || tid_name || ', ' || coalesce('t.' || source, 'NULL') || ' AS ' || source_name || ' FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND ' || due || ' FOR NO KEY UPDATE OF t'
            || CASE p ->> 'on_locked' WHEN 'skip' THEN ' SKIP LOCKED' ELSE '' END || ')';
    closing_sql := '
            RETURNING ' || result || ')
        SELECT pg_catalog.count(*), ' || CASE WHEN method = 'reencrypt' OR (method = 'encrypt' AND clears) THEN '(envelope_internal.count_deks(w.dek)).stubs'
            ELSE 'CAST(NULL AS pg_catalog.bytea[])' END || ',
               pg_catalog.count(*) FILTER (WHERE w.verified IS NOT TRUE) FROM w';
    update_sql := update_sql || ',
        w (dek, verified) AS (
            UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
                || CASE WHEN clears THEN ', ' || source || ' = NULL' ELSE '' END || ' FROM ' || row_name || '
            WHERE t.ctid OPERATOR(pg_catalog.=) ' || row_name || '.' || tid_name || ' AND ' || in_range || closing_sql;
    -- Without locks of its own, but waits for those of others. What is not due is counted on the way, so no scan has to look first;
    -- and what it makes is looked at only where a trigger can have changed it.
    IF source IS NULL THEN
        quick_verifies := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = leaf AND tgtype & 19 = 19 AND tgenabled <> 'D');
        quick_sql := 'UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
            || ' WHERE ' || in_range || ' AND envelope_internal.sift(t.' || changed || ', $3)';
        IF quick_verifies THEN
            quick_sql := 'WITH w (dek, verified) AS (' || quick_sql || closing_sql;
        END IF;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) IS
    'part of env_rotate: the statements of a batch';
