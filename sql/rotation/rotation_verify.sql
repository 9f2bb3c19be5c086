CREATE OR REPLACE FUNCTION envelope_internal.rotation_verify(not_verified bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF not_verified > 0 THEN
        RAISE '% values did not open to their plaintext', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger change the column?';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_verify(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_verify(bigint) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_verify(bigint) IS
    'part of env_encrypt_column: an error if values did not open';
