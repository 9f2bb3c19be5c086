CREATE OR REPLACE FUNCTION @extschema@.env_mask(value text, keep integer) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF keep < 0 THEN
        RAISE 'characters to keep must not be negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A short text shows nothing.
    RETURN CASE WHEN length(value) <= keep THEN repeat('*', length(value))
                ELSE repeat('*', length(value) - keep) || right(value, keep) END;
END
$$;

COMMENT ON FUNCTION @extschema@.env_mask(text, integer) IS
    'a text with all but its last characters replaced by asterisks; all of them if it has no more than are kept';
