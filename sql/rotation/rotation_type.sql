-- The type that values of a column's plaintext hold; NULL for a type that is not encrypted.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_type(relation oid, column_name name) RETURNS text
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.value_type FROM envelope_internal.rotation_conversion(relation, column_name) AS c
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_type(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_type(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_type(oid, name) IS
    'part of env_rotate: text, bytea or jsonb, what values of a column hold';
