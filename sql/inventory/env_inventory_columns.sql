CREATE OR REPLACE FUNCTION @extschema@.env_inventory_columns(schema name DEFAULT NULL)
    RETURNS TABLE (relation regclass, column_name name, obstacle text)
    LANGUAGE sql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM envelope_internal.inventory_columns($1)
$$;

REVOKE ALL ON FUNCTION @extschema@.env_inventory_columns(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_inventory_columns(name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION @extschema@.env_inventory_columns(name) IS
    'columns that can hold encrypted values, and what keeps env_inventory from examining them';
