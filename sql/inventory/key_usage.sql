CREATE OR REPLACE FUNCTION envelope_internal.key_usage(key_id text, schema name)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        state text,
        stored_key_id text,
        rows bigint,
        deks bigint,
        detail text
    )
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    wanted_key_id CONSTANT text := key_id;
BEGIN
    -- An alias or a null is an error, also where there is no value to compare with.
    PERFORM envelope_internal.is_same_key(wanted_key_id, wanted_key_id);
    RETURN QUERY
        WITH examined AS MATERIALIZED (
            SELECT * FROM envelope_internal.inventory(schema)
        ), finding AS MATERIALIZED (
            SELECT e.relation, e.column_name, e.key_id, e.rows, e.deks, e.detail,
                   CASE e.content WHEN 'envelope' THEN 'in use' ELSE e.content END AS state
            FROM examined AS e
            WHERE e.content IN ('not examined', 'unreadable')
               OR (e.content = 'envelope' AND envelope_internal.is_same_key(e.key_id, wanted_key_id))
        ), total AS (
            SELECT count(*) AS columns, count(DISTINCT c.relation) AS relations
            FROM envelope_internal.inventory_columns(schema) AS c
        )
        SELECT NULL::regclass, NULL::name,
               CASE
                   WHEN bool_or(f.state = 'in use') THEN 'in use'
                   WHEN bool_or(f.state IS NOT NULL) THEN 'incomplete'
                   ELSE 'not in use'
               END,
               wanted_key_id, coalesce(sum(f.rows) FILTER (WHERE f.state = 'in use'), 0)::bigint, NULL::bigint,
               format('database %s%s: %s of %s bytea columns in %s relations examined', current_database(),
                      ', schema ' || schema,
                      total.columns - count(*) FILTER (WHERE f.state = 'not examined' AND f.relation IS NOT NULL), total.columns, total.relations)
        FROM total LEFT JOIN finding AS f ON true
        GROUP BY total.columns, total.relations
        UNION ALL
        SELECT f.relation, f.column_name, f.state, f.key_id, f.rows, f.deks, f.detail FROM finding AS f;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.key_usage(text, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.key_usage(text, name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION envelope_internal.key_usage(text, name) IS
    'env_key_usage, for the extension itself';
