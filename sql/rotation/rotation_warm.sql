CREATE OR REPLACE FUNCTION envelope_internal.rotation_warm(method text, stubs bytea[], to_key text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF method = 'rewrap' THEN
        PERFORM envelope_internal.rewrap_warm(stubs, to_key);
    ELSE
        PERFORM envelope_internal.reencrypt_warm(stubs, NULL);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_warm(text, bytea[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_warm(text, bytea[], text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_warm(text, bytea[], text) IS
    'part of env_rotate: ask KMS for what a batch takes';
