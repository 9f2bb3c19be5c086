-- Inventory: where encrypted values are, and under which keys. Headers only: no KMS call, and no right to decrypt needed.
-- SECURITY INVOKER, so that nobody learns of tables he may not read; what could not be read is said. Compiling the statements
-- would take longer than most of them.
CREATE OR REPLACE FUNCTION envelope_internal.inventory_columns(schema name)
    RETURNS TABLE (relation regclass, column_name name, obstacle text)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF schema IS NOT NULL THEN
        PERFORM quote_ident(schema)::regnamespace;
    END IF;
    RETURN QUERY
        WITH RECURSIVE contained (type, holder, is_domain) AS MATERIALIZED (
            SELECT typbasetype, oid, true FROM pg_type WHERE typbasetype <> 0
            UNION ALL
            SELECT typelem, oid, false FROM pg_type WHERE typelem <> 0
            UNION ALL
            SELECT part.atttypid, row.reltype, false
            FROM pg_attribute AS part JOIN pg_class AS row ON row.oid = part.attrelid
            WHERE part.attnum > 0 AND NOT part.attisdropped AND row.reltype <> 0
            UNION ALL
            SELECT rngsubtype, rngtypid, false FROM pg_range
            UNION ALL
            SELECT rngtypid, rngmultitypid, false FROM pg_range
        ), holder (type, is_bytea) AS (
            -- Types with bytea in them: domains over it, arrays, composites, ranges, and all of these in each other.
            SELECT 'bytea'::regtype::oid, true
            UNION
            SELECT c.holder, h.is_bytea AND c.is_domain FROM holder AS h JOIN contained AS c ON c.type = h.type
        )
        SELECT c.oid::regclass, a.attname,
               CASE
                   WHEN c.relkind = 'f' THEN 'foreign table'
                   WHEN envelope_internal.citus_form(c.oid) IS NOT NULL AND NOT envelope_internal.citus_is_coordinator()
                       THEN 'distributed table: the coordinator examines it'
                   WHEN NOT h.is_bytea THEN 'type ' || format_type(a.atttypid, a.atttypmod)
                   WHEN pg_is_other_temp_schema(n.oid) THEN 'temporary table of another session'
                   WHEN c.relpersistence = 'u' AND pg_is_in_recovery() THEN 'unlogged table on a standby'
                   WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'no USAGE on the schema'
                   WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'no SELECT on the table'
                   WHEN row_security_active(c.oid) THEN 'row-level security hides rows'
               END
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            -- A virtual generated column holds nothing.
            AND a.attgenerated <> 'v'
        JOIN holder AS h ON h.type = a.atttypid
        WHERE (c.relkind IN ('r', 'f') OR (c.relkind = 'm' AND c.relispopulated))
          AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND NOT envelope_internal.citus_is_shard(c.oid)
          -- The extension's own tables hold ids of data keys and no values.
          AND c.oid <> ALL (ARRAY(
              SELECT d.objid
              FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
              WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
                AND e.extname = 'envelope_pg'))
          AND (schema IS NULL OR n.nspname = schema)
        ORDER BY n.nspname, c.relname, a.attnum;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.inventory_columns(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.inventory_columns(name) TO envelope_rotate, envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.inventory_columns(name) IS
    'env_inventory_columns, for the extension itself';
