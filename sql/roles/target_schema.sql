-- Whoever may create in the schema of the extension can put a function beside each of ours. Nothing in the extension is fooled
-- by that, as it calls nothing by a name in this schema; but calls of applications can be.
DO $$
DECLARE
    creators text;
BEGIN
    SELECT CASE WHEN bool_or(holder = 0) THEN 'PUBLIC'
                ELSE string_agg(quote_ident(rolname), ', ' ORDER BY rolname) END
    INTO creators
    FROM (
        SELECT r.oid AS holder, r.rolname FROM pg_roles AS r
        WHERE NOT r.rolsuper AND r.oid >= 16384 AND has_schema_privilege(r.oid, '@extschema@', 'CREATE')
        UNION ALL
        SELECT acl.grantee, NULL FROM pg_namespace AS n, aclexplode(n.nspacl) AS acl
        WHERE n.oid = '@extschema@'::regnamespace AND acl.grantee = 0 AND acl.privilege_type = 'CREATE'
    ) AS creator;
    IF creators IS NOT NULL THEN
        RAISE WARNING 'others may create objects in the schema of envelope_pg, %: %', '@extschema@'::regnamespace, creators
            USING DETAIL = 'An overload of one of its functions there can take the place of it in the statements of applications.',
                  HINT = 'REVOKE CREATE ON SCHEMA ... FROM them, or CREATE EXTENSION envelope_pg SCHEMA ... in one of its own.';
    END IF;
END
$$;
