-- As count_values, of a distributed table: its shards are read once each, on their nodes, and no blocks are named. A statement, as
-- only the planner sends it there: so not where code of an owner would run with rights that he lacks.
CREATE OR REPLACE FUNCTION envelope_internal.citus_count_values(relation oid, column_numbers smallint[]) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    name text;
    number smallint;
    of_column jsonb;
    groups jsonb := '[]';
BEGIN
    LOOP
        name := relation::regclass::text;
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', name);
        EXIT WHEN name = relation::regclass::text;
    END LOOP;
    PERFORM envelope_internal.rotation_trust(relation);
    FOREACH number IN ARRAY column_numbers LOOP
        EXECUTE format('
            WITH stub AS MATERIALIZED (
                SELECT envelope_internal.dek_stub(%1$I) AS stub,
                       CASE WHEN %1$I IS NULL THEN ''null'' WHEN envelope_internal.dek_stub(%1$I) IS NOT NULL THEN ''envelope''
                            WHEN substring(%1$I FROM 1 FOR 3) BETWEEN decode(''f64501'', ''hex'') AND decode(''f6450f'', ''hex'') THEN ''unreadable'' ELSE ''no envelope'' END AS content,
                       count(*) AS n
                FROM %2$s GROUP BY 1, 2
            ), listed AS (
                SELECT content, NULL::text AS key_id, n, NULL::bytea AS dek_id FROM stub WHERE content <> ''envelope''
                UNION ALL
                SELECT content, unnest(envelope_internal.key_ids(stub)), n, envelope_internal.dek_id(stub) FROM stub WHERE content = ''envelope''
            ), grouped AS (
                SELECT jsonb_build_object(''number'', $1, ''content'', content, ''key_id'', key_id, ''rows'', sum(n),
                           ''deks'', CASE content WHEN ''envelope'' THEN count(DISTINCT dek_id) END) AS found, content
                FROM listed GROUP BY content, key_id
            )
            SELECT CASE WHEN bool_or(content IN (''envelope'', ''unreadable'')) THEN jsonb_agg(found) ELSE ''[]'' END FROM grouped',
            (SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum = number), name) INTO of_column USING number;
        groups := groups || coalesce(of_column, '[]');
    END LOOP;
    RETURN groups;
END
$$;

-- What the other nodes have of their own: tables that are not distributed. They are named in detail.
CREATE OR REPLACE FUNCTION envelope_internal.citus_other_nodes(schema name)
    RETURNS TABLE (
        relation regclass, column_name name, content text, key_id text, rows bigint, deks bigint, first_block bigint, last_block bigint,
        detail text
    )
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
BEGIN
    IF to_regproc('pg_catalog.run_command_on_workers') IS NULL OR NOT envelope_internal.citus_is_coordinator() THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE '
        SELECT NULL::regclass, i.column_name, coalesce(i.content, ''not examined''), i.key_id, i.rows, i.deks, i.first_block, i.last_block,
               concat_ws('' '', ''node'', concat(w.nodename, '':'', w.nodeport), i.relation, i.detail, CASE WHEN NOT w.success THEN w.result END)
        FROM pg_catalog.run_command_on_workers($1) AS w
        LEFT JOIN LATERAL jsonb_to_recordset(CASE WHEN w.success THEN w.result::jsonb END) AS i (
            relation text, column_name name, content text, key_id text, rows bigint, deks bigint, first_block bigint, last_block bigint,
            detail text) ON true
        WHERE NOT w.success OR i.content IS NOT NULL'
        USING format('SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(i)), ''[]'')
                      FROM envelope_internal.inventory(%L) AS i WHERE NOT i.detail LIKE ''distributed table: %%'' OR i.detail IS NULL', schema);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.citus_count_values(oid, smallint[]), envelope_internal.citus_other_nodes(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.citus_count_values(oid, smallint[]), envelope_internal.citus_other_nodes(name), envelope_internal.rotation_trust(oid),
    envelope_internal.lock_definition(oid), envelope_internal.lock_schema(oid)
    TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION envelope_internal.citus_count_values(oid, smallint[]) IS
    'part of env_inventory on Citus: the values of a table''s columns by key';
COMMENT ON FUNCTION envelope_internal.citus_other_nodes(name) IS
    'part of env_inventory on Citus: the tables that other nodes have of their own';
