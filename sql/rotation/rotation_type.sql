-- The type that a column's plaintext or values are of; NULL for others than text, bytea and jsonb.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_type(relation oid, column_name name) RETURNS text
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (type) AS (
        SELECT atttypid FROM pg_attribute WHERE attrelid = relation AND attname = column_name AND NOT attisdropped
        UNION ALL
        SELECT typbasetype FROM pg_type JOIN base ON oid = type WHERE typtype = 'd'
    )
    SELECT CASE WHEN type IN ('text'::regtype, 'varchar'::regtype) THEN 'text'
                WHEN type = 'bytea'::regtype THEN 'bytea' WHEN type = 'jsonb'::regtype THEN 'jsonb' END
    FROM base JOIN pg_type ON oid = type WHERE typtype <> 'd'
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_type(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_type(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_type(oid, name) IS
    'part of env_rotate: text, bytea or jsonb, the type of a column without its domains';
