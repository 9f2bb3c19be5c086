-- On the coordinator of Citus: what is wrong with the other nodes, by their own env_check, where they differ from this one, and where
-- a cluster has plaintext that one server has not. Nothing where there is no Citus, and on a worker.
CREATE OR REPLACE FUNCTION envelope_internal.check_nodes()
    RETURNS TABLE (area text, severity text, finding text, object text, detail text, mend text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    SET standard_conforming_strings = on
AS $$
#variable_conflict use_column
DECLARE
    here CONSTANT jsonb := envelope_internal.check_node();
    nodes jsonb;
    distributed text;
BEGIN
    IF to_regclass('pg_catalog.pg_dist_node') IS NULL OR NOT envelope_internal.citus_is_coordinator() THEN
        RETURN;
    END IF;
    BEGIN
        EXECUTE 'SELECT coalesce(jsonb_agg(jsonb_build_object(''node'', concat(nodename, '':'', nodeport), ''success'', success, ''answer'', result)), ''[]'')
                 FROM pg_catalog.run_command_on_workers($1)' INTO nodes
            -- By exact types, as others may have functions of that name in its schema.
            USING format('SELECT pg_catalog.jsonb_build_object(''is'', envelope_internal.check_node(), ''findings'',
                             (SELECT pg_catalog.jsonb_agg(f) FROM %s.env_check(false, 0::pg_catalog.int8) AS f))',
                         (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'envelope_pg'));
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN QUERY SELECT 'data', 'notice', 'not_examined', 'other nodes', SQLERRM, '-- Ask as a role that may run commands on them.';
        RETURN;
    END;
    RETURN QUERY
        SELECT 'settings', 'error', 'node', n ->> 'node', concat('the node does not answer: ', n ->> 'answer'),
               '-- Start it, and see that it has this release of envelope_pg: ALTER EXTENSION envelope_pg UPDATE on the coordinator.'
        FROM jsonb_array_elements(nodes) AS n WHERE NOT (n ->> 'success')::boolean
        UNION ALL
        SELECT f.area, f.severity, f.finding, concat(n ->> 'node', ': ', f.object), f.detail, concat(f.mend, ' -- on ', n ->> 'node')
        FROM jsonb_array_elements(nodes) AS n
        CROSS JOIN jsonb_to_recordset(nullif((CASE WHEN (n ->> 'success')::boolean THEN n ->> 'answer' END)::jsonb -> 'findings', 'null'))
            AS f (severity text, area text, finding text, object text, detail text, mend text)
        UNION ALL
        SELECT 'settings', 'warning', 'node_differs', concat(n ->> 'node', ': ', h.key), format('it is "%s" there and "%s" on the coordinator', t.value, h.value),
               CASE WHEN h.key LIKE 'envelope_pg.%' THEN format('LOAD ''envelope_pg''; ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf(); -- on %s', h.key, h.value, n ->> 'node')
                    ELSE format('-- Install the same release on %s, and ALTER EXTENSION envelope_pg UPDATE.', n ->> 'node') END
        FROM jsonb_array_elements(nodes) AS n
        CROSS JOIN jsonb_each_text(here) AS h
        JOIN LATERAL jsonb_each_text((CASE WHEN (n ->> 'success')::boolean THEN n ->> 'answer' END)::jsonb -> 'is') AS t ON t.key = h.key AND t.value <> h.value;
    EXECUTE 'SELECT string_agg(DISTINCT d.logicalrelid::text, '', '') FROM pg_catalog.pg_dist_partition AS d
             JOIN pg_attribute AS a ON a.attrelid = d.logicalrelid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE envelope_internal.rotation_type(a.attrelid, a.attname) = ''bytea''' INTO distributed;
    IF distributed IS NOT NULL THEN
        RETURN QUERY SELECT 'plaintext', 'notice', 'intermediate_results', 'cluster',
            concat('what a CTE or sub-query decrypts can lie in base/pgsql_job_cache of the nodes until its transaction ends, and what is compared with '
                'env_decrypt() is in the text of statements that workers run; tables with columns that can hold values: ', distributed),
            '-- Decrypt in the outermost SELECT, and compare tokens or the rows of a MATERIALIZED CTE: docs/guide/citus.md.';
    END IF;
END
$$;

-- What nodes of a cluster should have in common: the release, and the settings of the server.
CREATE OR REPLACE FUNCTION envelope_internal.check_node() RETURNS jsonb
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('release', (SELECT extversion FROM pg_extension WHERE extname = 'envelope_pg'))
        || coalesce((SELECT jsonb_object_agg(name, reset_val) FROM pg_settings WHERE starts_with(name, 'envelope_pg.') AND reset_val IS NOT NULL), '{}')
    -- Loads the library, whose settings are not known before.
    FROM envelope_internal.check_server()
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_nodes(), envelope_internal.check_node() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_nodes(), envelope_internal.check_node() TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_nodes() IS
    'part of env_check: what is wrong with the other nodes of Citus';
COMMENT ON FUNCTION envelope_internal.check_node() IS
    'part of env_check: what nodes of Citus should have in common';
