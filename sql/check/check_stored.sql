-- Where PostgreSQL itself keeps plaintext of encrypted columns: statistics and materialized views. Only catalogs are read; what
-- they hold is not looked at.
CREATE OR REPLACE FUNCTION envelope_internal.check_stored()
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH opening AS MATERIALIZED (
        SELECT p.oid FROM pg_depend AS d
        JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'envelope_pg'
        JOIN pg_proc AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.proname ~ '^env_(try_)?decrypt(_bytea|_jsonb)?$'
    ), source AS MATERIALIZED (
        -- Columns that an encrypting trigger empties.
        SELECT DISTINCT a.attrelid, a.attnum, a.attname
        FROM envelope_internal.check_rules() AS r
        JOIN pg_attribute AS a ON a.attrelid = r.relation AND a.attname::text = r.rule ->> 'source' AND NOT a.attisdropped
        WHERE r.rule ->> 'source' <> r.rule ->> 'target'
    )
    -- Its own rows only in the statistics of tables that the caller may read.
    SELECT 'warning', 'statistics_of_plaintext', format('%s.%I', s.attrelid::regclass, s.attname),
           'pg_statistic has values of this column from before the trigger emptied it',
           format('ANALYZE %s (%I);', s.attrelid::regclass, s.attname)
    FROM source AS s
    JOIN pg_class AS c ON c.oid = s.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_stats AS t ON t.schemaname = n.nspname AND t.tablename = c.relname AND t.attname = s.attname
    WHERE t.most_common_vals IS NOT NULL OR t.histogram_bounds IS NOT NULL
    UNION ALL
    SELECT CASE WHEN d.opens THEN 'error' ELSE 'warning' END, 'extended_statistics',
           format('%I.%I', n.nspname, x.stxname),
           CASE WHEN d.opens THEN 'ANALYZE decrypts values for these statistics, and keeps plaintext'
                ELSE 'ANALYZE keeps plaintext of a column that an encrypting trigger empties' END,
           format('DROP STATISTICS %I.%I;', n.nspname, x.stxname)
    FROM pg_statistic_ext AS x
    JOIN pg_namespace AS n ON n.oid = x.stxnamespace
    CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM pg_depend AS f JOIN opening AS o ON o.oid = f.refobjid
                       WHERE f.classid = 'pg_statistic_ext'::regclass AND f.objid = x.oid AND f.refclassid = 'pg_proc'::regclass) AS opens
    ) AS d
    WHERE d.opens OR EXISTS (SELECT FROM pg_depend AS f JOIN source AS s ON s.attrelid = f.refobjid AND s.attnum = f.refobjsubid
                             WHERE f.classid = 'pg_statistic_ext'::regclass AND f.objid = x.oid AND f.refclassid = 'pg_class'::regclass)
    UNION ALL
    SELECT 'warning', 'materialized_view', c.oid::regclass::text,
           'it keeps what it decrypted: plaintext, on disk and in dumps',
           format('DROP MATERIALIZED VIEW %s;', c.oid::regclass)
    FROM pg_class AS c
    WHERE c.relkind = 'm'
      AND EXISTS (SELECT FROM pg_rewrite AS w
                  JOIN pg_depend AS f ON f.classid = 'pg_rewrite'::regclass AND f.objid = w.oid AND f.refclassid = 'pg_proc'::regclass
                  JOIN opening AS o ON o.oid = f.refobjid
                  WHERE w.ev_class = c.oid)
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_stored() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_stored() TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_stored() IS
    'part of env_check: statistics and materialized views with plaintext';
