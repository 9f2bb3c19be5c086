-- Where a setting has which value: the server's own, and what ALTER ROLE and ALTER DATABASE have for this database. Not what a
-- session has set for itself. The statement takes the value away.
CREATE OR REPLACE FUNCTION envelope_internal.check_settings_of(names text[])
    RETURNS TABLE (name text, value text, object text, mend text)
    LANGUAGE sql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    -- One of a library that this session has not loaded is not in pg_settings.
    SELECT n, coalesce(s.reset_val, current_setting(n, true)), 'server', NULL
    FROM unnest($1) AS n LEFT JOIN pg_settings AS s ON s.name = n
    WHERE CASE WHEN s.name IS NOT NULL THEN s.source NOT IN ('database', 'user', 'database user')
               ELSE NOT EXISTS (SELECT FROM pg_db_role_setting AS p CROSS JOIN unnest(p.setconfig) AS c WHERE lower(split_part(c, '=', 1)) = n) END
    UNION ALL
    SELECT lower(split_part(c, '=', 1)),
           CASE WHEN s.vartype <> 'bool' OR s.vartype IS NULL THEN substr(c, strpos(c, '=') + 1)
                WHEN substr(c, strpos(c, '=') + 1) IN ('on', 'true', 'yes', '1', 't', 'y') THEN 'on' ELSE 'off' END,
           concat_ws(' ', 'role ' || quote_ident(r.rolname), 'database ' || quote_ident(d.datname)),
           CASE WHEN r.oid IS NULL THEN format('ALTER DATABASE %I RESET %s;', d.datname, lower(split_part(c, '=', 1)))
                WHEN d.oid IS NULL THEN format('ALTER ROLE %I RESET %s;', r.rolname, lower(split_part(c, '=', 1)))
                ELSE format('ALTER ROLE %I IN DATABASE %I RESET %s;', r.rolname, d.datname, lower(split_part(c, '=', 1))) END
    FROM pg_db_role_setting AS p
    CROSS JOIN unnest(p.setconfig) AS c
    LEFT JOIN pg_settings AS s ON s.name = lower(split_part(c, '=', 1))
    LEFT JOIN pg_roles AS r ON r.oid = p.setrole
    LEFT JOIN pg_database AS d ON d.oid = p.setdatabase
    WHERE lower(split_part(c, '=', 1)) = ANY ($1) AND (d.oid IS NULL OR d.datname = current_database())
      AND (r.oid IS NOT NULL OR d.oid IS NOT NULL)
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_settings_of(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_settings_of(text[]) TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_settings_of(text[]) IS
    'part of env_check: where a setting has which value';
