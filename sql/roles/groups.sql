-- Group roles. They are shared by all databases of the server, so they are made once and never dropped. One that exists may
-- have been made by somebody who wants its rights: whoever has CREATEROLE can.
DO $$
DECLARE
    group_name name;
    attributes text;
    members text;
BEGIN
    FOREACH group_name IN ARRAY ARRAY['envelope_encrypt', 'envelope_decrypt', 'envelope_rotate', 'envelope_admin', 'envelope_search']::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = group_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', group_name);
            CONTINUE;
        END IF;
        SELECT concat_ws(', ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcanlogin THEN 'LOGIN' END,
                         CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
                         CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END)
        INTO attributes FROM pg_roles WHERE rolname = group_name;
        SELECT string_agg(DISTINCT quote_ident(member.rolname), ', ') INTO members
        FROM pg_auth_members AS m
        JOIN pg_roles AS grouped ON grouped.oid = m.roleid AND grouped.rolname = group_name
        JOIN pg_roles AS member ON member.oid = m.member AND NOT member.rolsuper;
        IF attributes <> '' THEN
            RAISE WARNING 'role "%" exists already, with %', group_name, attributes
                USING DETAIL = 'It is a group role of envelope_pg and is about to get rights of this extension.',
                      HINT = format('Make sure that you know it; ALTER ROLE %I NOLOGIN takes LOGIN from it.', group_name);
        END IF;
        IF members IS NOT NULL THEN
            RAISE WARNING 'role "%" exists already, with members: %', group_name, members
                USING DETAIL = 'They are about to get what envelope_pg grants to this role.',
                      HINT = format('REVOKE %I FROM ... takes it from those who shall not have it.', group_name);
        END IF;
    END LOOP;
END
$$;
