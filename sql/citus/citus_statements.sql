-- The statements of a batch on a distributed table. Each of them goes to all shards; what they compute is computed on the workers
-- from the row that is replaced, so no update is lost.
--   $1, $2  the range, as text: the first tid and the one behind the last; for form 'keys' the primary key before the first row and
--           that of the last one, NULL for no bound
--   $3      stubs of the data keys to change; encrypt: to leave alone      $4  rewrap: donors of their new wrapped keys, in the same order
--   $5      row_sql only: the distribution column's value as text
-- compute_sql gives what apply_sql takes, arrays of keys, old and new values: for new values that would be others at each placement.
CREATE OR REPLACE FUNCTION envelope_internal.citus_statements(
    leaf oid, p jsonb,
    OUT form text, OUT is_adoption boolean, OUT scan_sql text, OUT target_only_sql text, OUT clear_sql text, OUT update_sql text,
    OUT returns_stubs boolean, OUT rows_sql text, OUT row_sql text, OUT bound_sql text, OUT compute_sql text, OUT apply_sql text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    method CONSTANT text := p ->> 'method';
    changed CONSTANT text := 't.' || quote_ident(p ->> 'column');
    source CONSTANT text := 't.' || quote_ident(p ->> 'source');
    clears CONSTANT boolean := coalesce((p ->> 'clear_source')::boolean, false);
    aad CONSTANT text := CASE
        WHEN p ? 'aad_column' THEN format(', CAST(t.%I AS pg_catalog.text)', p ->> 'aad_column')
        WHEN p ? 'aad_expression' THEN ', CAST((' || (p ->> 'aad_expression') || ') AS pg_catalog.text)'
        ELSE '' END;
    relation text;
    range text := 't.ctid OPERATOR(pg_catalog.>=) CAST(($1)[1] AS pg_catalog.tid) AND t.ctid OPERATOR(pg_catalog.<) CAST(($2)[1] AS pg_catalog.tid)';
    of_row text := '';
    distribution_column text;
    conversion record;
    key record;
    guard text;
    due text;
    new_value text;
    opens text;
BEGIN
    SELECT format('%I.%I', nspname, relname) INTO relation
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = leaf;
    IF NOT FOUND THEN
        RAISE 'a table of the run is gone' USING ERRCODE = 'undefined_table';
    END IF;
    form := envelope_internal.citus_form(leaf);
    returns_stubs := method = 'reencrypt';
    is_adoption := method IN ('encrypt', 'decrypt');
    IF form = 'keys' THEN
        SELECT string_agg(format('t.%I', attname), ', ' ORDER BY place) AS columns,
               string_agg(format('CAST(t.%I AS pg_catalog.text)', attname), ', ' ORDER BY place) AS texts,
               string_agg(format('CAST((%s)[%s] AS %s)', '$1', place, format_type(atttypid, atttypmod)), ', ' ORDER BY place) AS lower,
               string_agg(format('CAST((%s)[%s] AS %s)', '$2', place, format_type(atttypid, atttypmod)), ', ' ORDER BY place) AS upper,
               string_agg(format('t.%I OPERATOR(pg_catalog.=) CAST((CAST(m.keys AS pg_catalog.jsonb) OPERATOR(pg_catalog.->>) %s) AS %s)',
                                 attname, place - 1, format_type(atttypid, atttypmod)), ' AND ' ORDER BY place) AS matches
        INTO key
        FROM pg_index, unnest(indkey) WITH ORDINALITY AS k (attnum, place) JOIN pg_attribute AS a USING (attnum)
        WHERE indrelid = leaf AND indisprimary AND attrelid = leaf;
        IF key.columns IS NULL THEN
            RAISE 'table % has several placements of each row, and no primary key', relation
                USING ERRCODE = 'feature_not_supported', HINT = 'ALTER TABLE ... ADD PRIMARY KEY first: it tells rows from each other.';
        END IF;
        range := format('($1 IS NULL OR ROW(%1$s) OPERATOR(pg_catalog.>) ROW(%2$s)) AND ($2 IS NULL OR ROW(%1$s) OPERATOR(pg_catalog.<=) ROW(%3$s))',
                        key.columns, key.lower, key.upper);
        bound_sql := format('SELECT ARRAY[%1$s] FROM %2$s AS t WHERE ($1 IS NULL OR ROW(%3$s) OPERATOR(pg_catalog.>) ROW(%4$s))
                             ORDER BY %3$s OFFSET $2 LIMIT 1', key.texts, relation, key.columns, key.lower);
    ELSE
        EXECUTE 'SELECT pg_catalog.column_to_column_name(logicalrelid, partkey::text) FROM pg_catalog.pg_dist_partition
                 WHERE logicalrelid = $1::regclass AND partkey IS NOT NULL' INTO distribution_column USING leaf;
        SELECT format(' AND t.%I OPERATOR(pg_catalog.=) CAST($5 AS %s)', attname, format_type(atttypid, atttypmod)) INTO of_row
        FROM pg_attribute WHERE attrelid = leaf AND attname = distribution_column;
        of_row := coalesce(of_row, '');
    END IF;
    IF method = 'rewrap' THEN
        due := 'envelope_internal.is_of_any(' || changed || ', $3)';
        new_value := 'envelope_internal.splice_any(' || changed || ', $3, $4)';
    ELSIF method = 'reencrypt' THEN
        due := 'envelope_internal.is_of_any(' || changed || ', $3)';
        new_value := format('envelope_internal.%sreencrypt(%s, %L%s)', CASE form WHEN 'blocks' THEN 'citus_' ELSE '' END, changed, p ->> 'to_key', aad);
        opens := changed || ' OPERATOR(pg_catalog.=) m.old';
    ELSE
        conversion := envelope_internal.citus_conversion(leaf, (CASE method WHEN 'encrypt' THEN p ->> 'source' ELSE p ->> 'column' END)::name);
        IF method = 'encrypt' THEN
            opens := format('envelope_internal.citus_opens_to(%s, %s%s)', changed, format(conversion.to_plaintext, source), aad);
            new_value := format('envelope_internal.%sencrypt(%s, %L, CAST(%L AS pg_catalog.jsonb)%s)', CASE form WHEN 'blocks' THEN 'citus_' ELSE '' END,
                                format(conversion.to_plaintext, source), p ->> 'to_key', p ->> 'context', aad);
        ELSE
            opens := format('envelope_internal.citus_opens_to(%s, %s%s)', source, format(conversion.to_plaintext, changed), aad);
            new_value := format(conversion.from_plaintext, 'envelope_internal.citus_decrypt'
                || CASE conversion.value_type WHEN 'text' THEN '' ELSE '_' || conversion.value_type END || '(' || source || aad || ')');
        END IF;
        -- First whether the data key is refused: then the value cannot be compared with the plaintext.
        guard := 'CASE WHEN ' || source || ' IS NOT NULL AND envelope_internal.is_of_any('
            || CASE method WHEN 'encrypt' THEN changed || ', $3) IS NOT TRUE' ELSE source || ', $3)' END || ' THEN ';
        due := guard || '(' || opens || ') IS NOT TRUE ELSE false END';
        -- What opens to the plaintext that is stored beside it: in a pass behind the one that has written it.
        IF clears THEN
            clear_sql := format('UPDATE %s AS t SET %I = NULL WHERE %s AND %s', relation, p ->> 'source', guard || opens || ' ELSE false END', range);
        END IF;
        IF NOT clears THEN
            target_only_sql := format('SELECT pg_catalog.count(*) FROM %s AS t WHERE %s AND %s IS NULL AND %s IS NOT NULL', relation, range, source, changed);
        END IF;
        opens := format('envelope_internal.citus_opens_to(m.new, %s%s)', format(conversion.to_plaintext, source), aad);
    END IF;
    scan_sql := format('SELECT COALESCE(pg_catalog.array_agg(s.stub) FILTER (WHERE s.stub IS NOT NULL), CAST(''{}'' AS pg_catalog.bytea[])),
            COALESCE(pg_catalog.array_agg(s.n) FILTER (WHERE s.stub IS NOT NULL), CAST(''{}'' AS pg_catalog.int8[])),
            CAST(COALESCE(pg_catalog.sum(s.n) FILTER (WHERE s.stub IS NULL), 0) AS pg_catalog.int8)
        FROM (SELECT envelope_internal.dek_stub(%1$s) AS stub, pg_catalog.count(*) AS n FROM %2$s AS t
              WHERE %3$s AND %1$s IS NOT NULL%4$s GROUP BY envelope_internal.dek_stub(%1$s)) AS s',
        CASE method WHEN 'decrypt' THEN source ELSE changed END, relation, range,
        CASE WHEN is_adoption THEN ' AND ' || source || ' IS NOT NULL' ELSE '' END);
    update_sql := coalesce(update_sql, format('UPDATE %s AS t SET %I = %s WHERE %s AND %s', relation, p ->> 'column', new_value, due, range));
    IF form = 'keys' AND method IN ('reencrypt', 'encrypt') THEN
        -- Computed once, here, and put where the row still is what it was.
        compute_sql := format('SELECT COALESCE(pg_catalog.array_agg(CAST(c.keys AS pg_catalog.text)), CAST(''{}'' AS pg_catalog.text[])),
                COALESCE(pg_catalog.array_agg(c.old), CAST(''{}'' AS pg_catalog.bytea[])), COALESCE(pg_catalog.array_agg(c.new), CAST(''{}'' AS pg_catalog.bytea[]))
            FROM (SELECT pg_catalog.jsonb_build_array(%s) AS keys, %s AS old, %s AS new FROM %s AS t WHERE %s AND %s) AS c',
            key.texts, changed, new_value, relation, due, range);
        apply_sql := format('UPDATE %s AS t SET %I = m.new FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS m (keys, old, new) WHERE %s AND %s',
            relation, p ->> 'column', key.matches, opens);
    ELSIF form = 'blocks' THEN
        rows_sql := format('SELECT ARRAY[CAST(t.ctid AS pg_catalog.text)] AS place,
                ARRAY[CAST(envelope_internal.rotation_next_tid(t.ctid) AS pg_catalog.text)] AS next_place, %s AS value FROM %s AS t WHERE %s AND %s',
            CASE WHEN of_row = '' THEN 'CAST(NULL AS pg_catalog.text)' ELSE format('CAST(t.%I AS pg_catalog.text)', distribution_column) END,
            relation, range, CASE WHEN method IN ('rewrap', 'reencrypt') THEN due ELSE source || ' IS NOT NULL' END);
        row_sql := update_sql || of_row;
    END IF;
    IF returns_stubs AND form = 'blocks' THEN
        update_sql := format('WITH w AS (%s RETURNING envelope_internal.dek_stub(%s) AS stub)
            SELECT pg_catalog.count(*), pg_catalog.array_agg(DISTINCT w.stub) FROM w', update_sql, changed);
        row_sql := format('WITH w AS (%s RETURNING envelope_internal.dek_stub(%s) AS stub)
            SELECT pg_catalog.count(*), pg_catalog.array_agg(DISTINCT w.stub) FROM w', row_sql, changed);
    END IF;
END
$$;

-- As rotation_conversion, with what may stand in an UPDATE that is pushed down.
CREATE OR REPLACE FUNCTION envelope_internal.citus_conversion(
    relation oid, column_name name, OUT value_type text, OUT to_plaintext text, OUT from_plaintext text
) LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    type text;
    given record;
BEGIN
    SELECT format_type(atttypid, NULL) INTO type FROM pg_attribute WHERE attrelid = relation AND attname = column_name AND NOT attisdropped;
    SELECT * INTO given FROM envelope_internal.rotation_conversion(relation, column_name);
    value_type := given.value_type;
    to_plaintext := CASE
        WHEN given.to_plaintext LIKE '%to_jsonb(%' THEN 'envelope_internal.citus_to_jsonb(%s)'
        WHEN value_type = 'text' AND type NOT IN ('text', 'character varying', 'character') THEN 'envelope_internal.citus_to_text(%s)'
        ELSE given.to_plaintext END;
    -- The type by its whole name: batches run under the caller's search_path.
    SELECT format('%I.%I', n.nspname, t.typname) INTO type
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped;
    from_plaintext := CASE
        WHEN given.from_plaintext = '%s' THEN '%s'
        WHEN given.from_plaintext LIKE '%#>>%' THEN format('envelope_internal.citus_from_text(%%s OPERATOR(pg_catalog.#>>) ''{}'', CAST(NULL AS %s))', replace(type, '%', '%%'))
        ELSE format('envelope_internal.citus_from_text(%%s, CAST(NULL AS %s))', replace(type, '%', '%%')) END;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.citus_statements(oid, jsonb), envelope_internal.citus_conversion(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.citus_statements(oid, jsonb), envelope_internal.citus_conversion(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.citus_statements(oid, jsonb) IS
    'part of env_rotate on Citus: the statements of a batch';
COMMENT ON FUNCTION envelope_internal.citus_conversion(oid, name) IS
    'part of env_rotate on Citus: how the plaintext of a column becomes that of a value, and back';
