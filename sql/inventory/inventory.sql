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
    seen oid[] := '{}';
    is_complete boolean;
BEGIN
    -- count_values takes a snapshot of its own under the lock on a table. The list of tables is of the transaction's snapshot, and
    -- would lack those that were made since.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE 'an inventory cannot be taken in a % transaction', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED first.';
    END IF;
    -- Until there is none that was made meanwhile.
    LOOP
        is_complete := true;
        FOR target IN
            SELECT c.relation, array_agg(c.column_name ORDER BY a.attnum) AS columns, array_agg(c.obstacle ORDER BY a.attnum) AS obstacles,
                   array_agg(a.attnum ORDER BY a.attnum) FILTER (WHERE c.obstacle IS NULL) AS numbers
            FROM (SELECT * FROM envelope_internal.inventory_columns(schema) WITH ORDINALITY) AS c
            JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attname = c.column_name
            LEFT JOIN unnest(seen) AS s (relation) ON s.relation = c.relation
            WHERE s.relation IS NULL
            GROUP BY c.relation
            ORDER BY min(c.ordinality)
        LOOP
            is_complete := false;
            seen := seen || target.relation::oid;
            IF target.numbers IS NOT NULL THEN
                BEGIN
                    RETURN QUERY
                        SELECT target.relation, a.attname, g.content, g.key_id, g.rows, g.deks, g.first_block, g.last_block, NULL::text
                        FROM jsonb_to_recordset(CASE WHEN envelope_internal.citus_form(target.relation) IS NULL
                            THEN envelope_internal.count_values(target.relation, target.numbers)
                            ELSE envelope_internal.citus_count_values(target.relation, target.numbers) END) AS g (
                            number smallint, content text, key_id text, rows bigint, deks bigint, first_block bigint, last_block bigint)
                        JOIN pg_attribute AS a ON a.attrelid = target.relation AND a.attnum = g.number
                        ORDER BY a.attnum, g.content, g.key_id;
                EXCEPTION
                    -- Such as a damaged page, or a table that went meanwhile. A cancel is not caught.
                    WHEN OTHERS THEN
                        -- One that is gone holds nothing.
                        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class WHERE oid = target.relation);
                        target.obstacles := (SELECT array_agg(coalesce(o, SQLERRM)) FROM unnest(target.obstacles) AS o);
                END;
            END IF;
            RETURN QUERY
                SELECT target.relation, o.column_name, 'not examined', NULL::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, o.obstacle
                FROM unnest(target.columns, target.obstacles) AS o (column_name, obstacle)
                WHERE o.obstacle IS NOT NULL;
        END LOOP;
        EXIT WHEN is_complete;
    END LOOP;
    RETURN QUERY SELECT * FROM envelope_internal.citus_other_nodes(schema);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.inventory(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.inventory(name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION envelope_internal.inventory(name) IS
    'env_inventory, for the extension itself';
