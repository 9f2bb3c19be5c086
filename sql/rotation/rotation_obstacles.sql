-- What would keep a run from being done, as far as it is known without one: what the CALL would refuse, and what would be failures.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_obstacles(p jsonb) RETURNS text[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    root CONSTANT oid := p ->> 'relation';
    rotated CONSTANT name := p ->> 'column';
    found text[] := '{}';
    leaf oid;
    hint text;
    foreign_leaves bigint;
BEGIN
    PERFORM envelope_internal.rotation_trust(l.leaf) FROM envelope_internal.rotation_leaves(root) AS l WHERE l.kind = 'r';
    FOR leaf IN SELECT l.leaf FROM envelope_internal.rotation_leaves(root) AS l WHERE l.kind = 'r' LOOP
        BEGIN
            PERFORM envelope_internal.rotation_rights(leaf, p);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
            found := found || (SQLERRM || '. ' || hint);
        END;
        EXIT WHEN cardinality(found) >= 10;
    END LOOP;
    BEGIN
        PERFORM envelope_internal.rotation_try(root, p);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
        found := found || concat_ws('. ', SQLERRM, nullif(hint, ''));
    END;
    found := found || ARRAY(
        SELECT format('column "%s" is generated', rotated) FROM pg_attribute WHERE attrelid = root AND attname = rotated AND attgenerated <> ''
        UNION ALL
        SELECT format('%s is published for UPDATE and has no replica identity', c.oid::regclass)
        FROM envelope_internal.rotation_leaves(root) AS l JOIN pg_class AS c ON c.oid = l.leaf
        JOIN pg_publication_tables AS t ON (t.schemaname, t.tablename) = (SELECT n.nspname, c.relname FROM pg_namespace AS n WHERE n.oid = c.relnamespace)
        JOIN pg_publication AS u ON u.pubname = t.pubname AND u.pubupdate
        WHERE c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary))
        UNION ALL
        SELECT format('constraint "%s" of %s names the column: rows that it refuses are failures', conname, conrelid::regclass)
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)
        WHERE conrelid = root AND contype = 'c' AND attname = rotated
        UNION ALL
        SELECT format('trigger "%s" of %s fires for each row', tgname, tgrelid::regclass)
        FROM pg_trigger JOIN envelope_internal.rotation_leaves(root) AS l ON l.leaf = tgrelid
        JOIN pg_attribute AS a ON a.attrelid = tgrelid AND a.attname = rotated
        WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0 AND tgfoid <> '@extschema@.env_encrypt_trigger()'::regprocedure
          AND (cardinality(tgattr::smallint[]) = 0 OR a.attnum = ANY (tgattr))
        LIMIT 20);
    SELECT count(*) INTO foreign_leaves FROM envelope_internal.rotation_leaves(root) WHERE kind = 'f';
    IF foreign_leaves > 0 THEN
        found := found || format('%s foreign partitions are left alone: rotate them on their own servers', foreign_leaves);
    END IF;
    RETURN found;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_obstacles(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_obstacles(jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_obstacles(jsonb) IS
    'part of env_rotation_plan: what would keep a run from being done';
