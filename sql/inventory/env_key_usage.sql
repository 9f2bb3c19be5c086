CREATE OR REPLACE FUNCTION @extschema@.env_key_usage(key_id text, schema name)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        state text,
        stored_key_id text,
        rows bigint,
        deks bigint,
        detail text
    )
    LANGUAGE sql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM envelope_internal.key_usage($1, $2)
$$;

CREATE OR REPLACE FUNCTION @extschema@.env_key_usage(key_id text)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        state text,
        stored_key_id text,
        rows bigint,
        deks bigint,
        detail text
    )
    LANGUAGE sql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM envelope_internal.key_usage($1, NULL::name)
$$;

REVOKE ALL ON FUNCTION @extschema@.env_key_usage(text), @extschema@.env_key_usage(text, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_key_usage(text), @extschema@.env_key_usage(text, name) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION @extschema@.env_key_usage(text) IS
    'whether any value of this database needs a key; the first row is the answer, the others are the proof';
COMMENT ON FUNCTION @extschema@.env_key_usage(text, name) IS
    'whether any value of a schema needs a key; null as the schema: of the database';
