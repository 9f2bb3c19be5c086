CREATE OR REPLACE FUNCTION @extschema@.env_inventory(schema name DEFAULT NULL)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        content text,
        key_id text,
        rows bigint,
        deks bigint,
        first_block bigint,
        last_block bigint,
        detail text
    )
    LANGUAGE sql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM envelope_internal.inventory($1)
$$;

REVOKE ALL ON FUNCTION @extschema@.env_inventory(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_inventory(name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION @extschema@.env_inventory(name) IS
    'bytea columns that hold encrypted values: rows, data keys and blocks for each key, from the headers of all rows';
