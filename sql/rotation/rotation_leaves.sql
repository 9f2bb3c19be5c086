CREATE OR REPLACE FUNCTION envelope_internal.rotation_leaves(relation oid) RETURNS TABLE (leaf oid, kind "char")
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (member) AS (
        SELECT $1
        UNION
        SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = member
    )
    SELECT oid, relkind FROM tree JOIN pg_class ON oid = member WHERE relkind IN ('r', 'f') ORDER BY oid
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_leaves(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_leaves(oid) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_leaves(oid) IS
    'part of env_rotate: the tables that hold the rows of a table, its partitions and children included';
