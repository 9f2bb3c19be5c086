-- A null where a command wants to be told something is a variable that nothing was found for. STRICT would do nothing, in silence.
CREATE OR REPLACE FUNCTION envelope_internal.refuse_null(arguments jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    nulls text;
BEGIN
    SELECT string_agg(key, ', ' ORDER BY key) INTO nulls FROM jsonb_each(arguments) WHERE value = 'null';
    IF nulls IS NOT NULL THEN
        RAISE '% must not be null', nulls USING ERRCODE = 'null_value_not_allowed',
            HINT = 'A query that finds no row gives null, too. To leave a restriction out, leave its argument out.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.refuse_null(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.refuse_null(jsonb)
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search, pg_monitor;

COMMENT ON FUNCTION envelope_internal.refuse_null(jsonb) IS
    'part of commands: an error for arguments that are null';
