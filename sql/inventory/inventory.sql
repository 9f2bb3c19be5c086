CREATE OR REPLACE FUNCTION envelope_internal.inventory(schema name)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        content text,
        key_id text,
        rows bigint,
        deks bigint,
        first_block bigint,
        last_block bigint,
        detail text
    )
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    target record;
BEGIN
    -- What is in a table must not be older than the lock on it: ALTER TABLE can write a table anew, which to a snapshot from
    -- before then is empty. VOLATILE and READ COMMITTED give each statement below a snapshot that is taken under its locks.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE 'an inventory cannot be taken in a % transaction', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED first.';
    END IF;
    FOR target IN
        SELECT c.relation, array_agg(c.column_name) AS columns, array_agg(c.obstacle) AS obstacles,
               string_agg(format('(%L::name, t.%I::bytea)', c.column_name, c.column_name), ', ')
                   FILTER (WHERE c.obstacle IS NULL) AS values_list
        FROM (SELECT * FROM envelope_internal.inventory_columns(schema) WITH ORDINALITY) AS c
        GROUP BY c.relation
        ORDER BY min(c.ordinality)
    LOOP
        IF target.values_list IS NOT NULL THEN
            BEGIN
                -- One pass over the table for all of its columns, grouped so that parallel workers can share it.
                RETURN QUERY EXECUTE format($query$
                    WITH head AS (
                        SELECT v.column_name, h.content,
                               CASE h.content WHEN 'envelope' THEN envelope_internal.key_ids(v.value) END AS key_ids,
                               CASE h.content WHEN 'envelope' THEN envelope_internal.dek_id(v.value) END AS dek_id,
                               count(*) AS rows, min(t.ctid) AS first_row, max(t.ctid) AS last_row
                        FROM ONLY %1$s AS t
                        CROSS JOIN LATERAL (VALUES %2$s) AS v (column_name, value)
                        CROSS JOIN LATERAL (SELECT CASE
                            WHEN v.value IS NULL THEN 'null'
                            WHEN envelope_internal.is_envelope(v.value) THEN 'envelope'
                            -- Damaged, or of a later release. Other data begins so once in a million values.
                            WHEN substr(v.value, 1, 3) BETWEEN '\xf64501' AND '\xf6450f' THEN 'unreadable'
                            ELSE 'no envelope'
                        END) AS h (content)
                        GROUP BY 1, 2, 3, 4
                    ), listed AS (
                        SELECT *, bool_or(head.content IN ('envelope', 'unreadable')) OVER (PARTITION BY head.column_name) AS is_listed
                        FROM head
                    )
                    SELECT %3$L::regclass, l.column_name, l.content, k.key_id, sum(l.rows)::bigint,
                           CASE l.content WHEN 'envelope' THEN count(DISTINCT l.dek_id) END,
                           (min(l.first_row)::text::point)[0]::bigint, (max(l.last_row)::text::point)[0]::bigint, NULL::text
                    FROM listed AS l
                    LEFT JOIN LATERAL (SELECT DISTINCT unnest(l.key_ids)) AS k (key_id) ON true
                    WHERE l.is_listed
                    GROUP BY l.column_name, l.content, k.key_id
                    ORDER BY array_position(%4$L::name[], l.column_name), l.content, k.key_id
                    $query$, target.relation, target.values_list, target.relation::oid, target.columns);
            EXCEPTION
                -- Such as a damaged page. A cancel is not caught.
                WHEN OTHERS THEN
                    target.obstacles := (SELECT array_agg(coalesce(o, SQLERRM)) FROM unnest(target.obstacles) AS o);
            END;
        END IF;
        RETURN QUERY
            SELECT target.relation, o.column_name, 'not examined', NULL::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, o.obstacle
            FROM unnest(target.columns, target.obstacles) AS o (column_name, obstacle)
            WHERE o.obstacle IS NOT NULL;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.inventory(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.inventory(name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION envelope_internal.inventory(name) IS
    'env_inventory, for the extension itself';
