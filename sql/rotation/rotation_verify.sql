CREATE OR REPLACE FUNCTION envelope_internal.rotation_verify(not_verified bigint, stubs bytea[], p jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    method text := p ->> 'method';
BEGIN
    IF not_verified > 0 AND method IN ('rewrap', 'reencrypt') THEN
        RAISE '% values are as they were', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger put the old value back?';
    ELSIF not_verified > 0 THEN
        RAISE '% values did not open to their plaintext', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger change the column?';
    END IF;
    -- They opened with the data key that is in memory. That KMS opens the wrapped one, too, is known when it has: before that
    -- nothing takes the place of plaintext.
    IF method = 'encrypt' AND (p ->> 'clear_source')::boolean THEN
        PERFORM envelope_internal.prove_deks(stubs);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_verify(bigint, bytea[], jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_verify(bigint, bytea[], jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_verify(bigint, bytea[], jsonb) IS
    'part of env_rotate: an error if values did not become what they were to be';
