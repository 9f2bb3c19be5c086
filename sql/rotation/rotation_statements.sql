-- The statements of a batch, for one table. They run under the caller's search_path, as triggers of the table must, so
-- every name and operator in them says its schema.
--   $1, $2  the first tid and the one behind the last      $3  stubs of the data keys to change; encrypt: to leave alone
CREATE OR REPLACE FUNCTION envelope_internal.rotation_statements(
    leaf oid, p jsonb,
    OUT scan_sql text, OUT count_sql text, OUT tids_sql text, OUT quick_sql text, OUT update_sql text
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
    type text;
    relation text;
    stub_of text := changed;
    stub text;
    due text;
    new_value text;
    result text := 'NULL, true';
    closing_sql text;
BEGIN
    SELECT format('%I.%I', nspname, relname) INTO relation
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = leaf;
    IF NOT FOUND THEN
        RAISE 'a table of the run is gone' USING ERRCODE = 'undefined_table';
    END IF;
    IF method IN ('rewrap', 'reencrypt') THEN
        due := 'envelope_internal.dek_stub(t.' || changed || ') OPERATOR(pg_catalog.=) ANY ($3)';
        new_value := 'envelope_internal.' || method || '(t.' || changed || ', ' || quote_literal(p ->> 'to_key')
            || CASE method WHEN 'reencrypt' THEN aad ELSE '' END || ')';
        IF method = 'reencrypt' THEN
            result := 'envelope_internal.dek_stub(t.' || changed || '), true';
        END IF;
    ELSIF method = 'encrypt' THEN
        type := 'pg_catalog.' || envelope_internal.rotation_type(leaf, (p ->> 'source')::name);
        due := 'envelope_internal.opens_to(t.' || changed || ', CAST(t.' || source || ' AS ' || type || ')' || aad || ')';
        new_value := 'CASE WHEN ' || due || ' IS TRUE THEN t.' || changed
            || ' ELSE envelope_internal.encrypt(CAST(t.' || source || ' AS ' || type || '), ' || quote_literal(p ->> 'to_key')
            || ', CAST(' || quote_literal(p ->> 'context') || ' AS pg_catalog.jsonb)' || aad || ') END';
        result := 'NULL, envelope_internal.opens_to(t.' || changed || ', CAST(l.env_source AS ' || type || ')' || aad || ')';
    ELSE
        type := 'pg_catalog.' || envelope_internal.rotation_type(leaf, (p ->> 'column')::name);
        stub_of := source;
        due := 'envelope_internal.opens_to(t.' || source || ', CAST(t.' || changed || ' AS ' || type || ')' || aad || ')';
        new_value := 'envelope_internal.decrypt' || CASE type WHEN 'pg_catalog.text' THEN '' WHEN 'pg_catalog.bytea'
            THEN '_bytea' ELSE '_jsonb' END || '(t.' || source || aad || ')';
        result := 'NULL, envelope_internal.opens_to(l.env_source, CAST(t.' || changed || ' AS ' || type || ')' || aad || ')';
    END IF;
    stub := 'envelope_internal.dek_stub(t.' || stub_of || ')';
    IF source IS NOT NULL THEN
        -- First whether the data key is refused: then the value cannot be compared with the plaintext. Without a value there is
        -- nothing to refuse.
        due := 't.' || source || ' IS NOT NULL AND CASE WHEN (' || stub || ' OPERATOR(pg_catalog.=) ANY ($3)) IS '
            || CASE method WHEN 'encrypt' THEN 'NOT TRUE' ELSE 'TRUE' END || ' THEN '
            || CASE WHEN clears THEN 'true' ELSE '(' || due || ') IS NOT TRUE' END || ' ELSE false END';
    END IF;
    scan_sql := 'SELECT pg_catalog.array_agg(s.stub), pg_catalog.array_agg(s.n) FROM (
        SELECT v.stub, pg_catalog.count(*) AS n FROM (
            SELECT ' || stub || ' AS stub FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND t.' || stub_of || ' IS NOT NULL'
                || coalesce(' AND t.' || source || ' IS NOT NULL', '') || ') AS v GROUP BY v.stub) AS s';
    IF source IS NOT NULL THEN
        -- If the source is cleared, all targets are the only one.
        count_sql := 'SELECT pg_catalog.count(*) FILTER (WHERE ' || due || '), pg_catalog.count(*) FILTER (WHERE '
            || CASE WHEN clears THEN 'false' ELSE 't.' || source || ' IS NULL AND t.' || changed || ' IS NOT NULL' END
            || ') FROM ONLY ' || relation || ' AS t WHERE ' || in_range;
    END IF;
    tids_sql := 'SELECT pg_catalog.array_agg(t.ctid) FROM ONLY ' || relation || ' AS t WHERE ' || in_range || ' AND ' || due;
    -- Whatever was committed since the snapshot of this statement is locked in its newest version, which the outer scan
    -- does not see: it is left for the next pass. So what is changed is what was read, and nobody's update is lost.
    update_sql := 'WITH l AS MATERIALIZED (
            SELECT t.ctid AS env_tid, ' || coalesce('t.' || source, 'NULL') || ' AS env_source FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND ' || due || ' FOR NO KEY UPDATE OF t'
            || CASE p ->> 'on_locked' WHEN 'skip' THEN ' SKIP LOCKED' ELSE '' END || ')';
    closing_sql := '
            RETURNING ' || result || ')
        SELECT pg_catalog.count(*), pg_catalog.array_agg(DISTINCT CAST(w.dek AS pg_catalog.bytea)),
               pg_catalog.count(*) FILTER (WHERE w.verified IS NOT TRUE) FROM w';
    update_sql := update_sql || ',
        w (dek, verified) AS (
            UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
                || CASE WHEN clears THEN ', ' || source || ' = NULL' ELSE '' END || ' FROM l
            WHERE t.ctid OPERATOR(pg_catalog.=) l.env_tid AND ' || in_range || closing_sql;
    -- Without locks of its own it takes two thirds of the time, but waits for those of others.
    IF source IS NULL THEN
        quick_sql := 'WITH w (dek, verified) AS (UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
            || ' WHERE ' || in_range || ' AND ' || due || closing_sql;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_statements(oid, jsonb) IS
    'part of env_rotate: the statements of a batch';
