CREATE OR REPLACE FUNCTION envelope_internal.rotation_verify(not_verified bigint, method text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF not_verified > 0 AND method IN ('rewrap', 'reencrypt') THEN
        RAISE '% values are as they were', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger put the old value back?';
    ELSIF not_verified > 0 THEN
        RAISE '% values did not open to their plaintext', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger change the column?';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_verify(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_verify(bigint, text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_verify(bigint, text) IS
    'part of env_rotate: an error if values did not become what they were to be';
