-- Who may do more than was meant: in the extension's schemas, in its group roles, with its functions and named keys.
CREATE OR REPLACE FUNCTION envelope_internal.check_rights()
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH group_role AS MATERIALIZED (
        SELECT r.* FROM pg_roles AS r
        WHERE r.rolname IN ('envelope_encrypt', 'envelope_decrypt', 'envelope_rotate', 'envelope_admin', 'envelope_search')
    ), superuser AS MATERIALIZED (
        SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper
        UNION ALL
        -- Whoever owns the database.
        SELECT g.oid FROM pg_roles AS g JOIN pg_database AS d ON d.datname = current_database()
        JOIN pg_roles AS o ON o.oid = d.datdba AND o.rolsuper
        WHERE g.rolname = 'pg_database_owner'
    ), routine AS MATERIALIZED (
        SELECT p.oid, p.proname, p.prokind, p.proacl, p.proowner FROM pg_depend AS d
        JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'envelope_pg'
        JOIN pg_proc AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.proname ~ '^(env_)?(try_)?(encrypt|decrypt|blind_index|rotate|rewrap|reencrypt)'
          AND p.proname NOT IN ('env_encryption_context', 'encryption_context', 'env_encrypt_trigger')
          AND p.prorettype <> 'trigger'::regtype
    )
    SELECT CASE WHEN a.grantee = 0 THEN 'error' ELSE 'warning' END, 'schema_writable', quote_ident(n.nspname),
           format('%s may create objects in the schema of the extension; an overload of one of its functions is called in its place, with the plaintext',
                  CASE WHEN a.grantee = 0 THEN 'everybody' ELSE 'role ' || quote_ident(r.rolname) END),
           CASE WHEN a.grantee = n.nspowner
                THEN format('ALTER SCHEMA %I OWNER TO %I;', n.nspname, (SELECT b.rolname FROM pg_roles AS b WHERE b.oid = 10))
                ELSE format('REVOKE CREATE ON SCHEMA %I FROM %s;', n.nspname, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END) END
    FROM pg_namespace AS n
    CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
    LEFT JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE (n.oid = '@extschema@'::regnamespace OR n.nspname = 'envelope_internal')
      AND a.privilege_type = 'CREATE' AND a.grantee NOT IN (SELECT s.oid FROM superuser AS s)
    UNION ALL
    SELECT 'error', 'group_attributes', quote_ident(g.rolname), 'a group role that is to have no rights but those of its name has ' || a.text,
           format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;', g.rolname)
    FROM group_role AS g
    CROSS JOIN concat_ws(', ', CASE WHEN g.rolsuper THEN 'SUPERUSER' END, CASE WHEN g.rolcanlogin THEN 'LOGIN' END,
                         CASE WHEN g.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN g.rolcreatedb THEN 'CREATEDB' END,
                         CASE WHEN g.rolreplication THEN 'REPLICATION' END, CASE WHEN g.rolbypassrls THEN 'BYPASSRLS' END) AS a (text)
    WHERE a.text <> ''
    UNION ALL
    SELECT 'warning', 'group_membership', quote_ident(g.rolname),
           format('it is a member of role %I, so all its members have the rights of that role', o.rolname),
           format('REVOKE %I FROM %I;', o.rolname, g.rolname)
    FROM group_role AS g JOIN pg_auth_members AS m ON m.member = g.oid JOIN pg_roles AS o ON o.oid = m.roleid
    UNION ALL
    SELECT DISTINCT 'warning', 'group_admin', quote_ident(g.rolname), format('role %I may make others members (ADMIN OPTION)', o.rolname),
           format('REVOKE ADMIN OPTION FOR %I FROM %I;', g.rolname, o.rolname)
    FROM group_role AS g JOIN pg_auth_members AS m ON m.roleid = g.oid AND m.admin_option JOIN pg_roles AS o ON o.oid = m.member AND NOT o.rolsuper
    UNION ALL
    -- Whom nobody expects there: roles of PostgreSQL's own, and those that somebody else than a superuser has let in.
    SELECT 'warning', 'group_member', quote_ident(g.rolname),
           CASE WHEN o.rolname ~ '^pg_' THEN format('%I is a member, so whoever PostgreSQL or a DBA gives that role has these rights, too', o.rolname)
                ELSE format('role %I is a member since role %I, which is no superuser, has let it in', o.rolname, b.rolname) END,
           concat(format('REVOKE %I FROM %I', g.rolname, o.rolname), ' GRANTED BY ' || quote_ident(b.rolname), ';')
    FROM group_role AS g JOIN pg_auth_members AS m ON m.roleid = g.oid
    JOIN pg_roles AS o ON o.oid = m.member
    LEFT JOIN pg_roles AS b ON b.oid = m.grantor
    WHERE (o.rolname ~ '^pg_' OR NOT b.rolsuper)
    UNION ALL
    SELECT 'error', 'public_execute', p.oid::regprocedure::text, 'everybody may call it',
           format('REVOKE EXECUTE ON %s %s FROM PUBLIC;', CASE WHEN p.prokind = 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure)
    FROM routine AS p
    CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE'
    UNION ALL
    SELECT 'warning', 'named_key_public', quote_ident(s.srvname), 'everybody who may call the functions may use this named key',
           format('REVOKE USAGE ON FOREIGN SERVER %I FROM PUBLIC;', s.srvname)
    FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'envelope_pg'
    CROSS JOIN aclexplode(s.srvacl) AS a
    WHERE a.grantee = 0 AND a.privilege_type = 'USAGE'
    UNION ALL
    SELECT 'warning', 'named_key_makers', CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
           'may make named keys of any KMS key (USAGE on the foreign data wrapper envelope_pg)',
           format('REVOKE USAGE ON FOREIGN DATA WRAPPER envelope_pg FROM %s;', CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END)
    FROM pg_foreign_data_wrapper AS w
    CROSS JOIN aclexplode(w.fdwacl) AS a
    LEFT JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE w.fdwname = 'envelope_pg' AND a.privilege_type = 'USAGE' AND a.grantee <> w.fdwowner AND r.rolname IS DISTINCT FROM 'envelope_admin'
      AND a.grantee NOT IN (SELECT s.oid FROM superuser AS s)
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_rights() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_rights() TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_rights() IS
    'part of env_check: who may do more than was meant';
