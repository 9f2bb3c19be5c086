CREATE OR REPLACE PROCEDURE @extschema@.env_encrypt_column(
    relation pg_catalog.regclass,
    source_column pg_catalog.name,
    target_column pg_catalog.name,
    key_id pg_catalog.text,
    encryption_context pg_catalog.jsonb DEFAULT '{}',
    aad_column pg_catalog.name DEFAULT NULL,
    aad_expression pg_catalog.text DEFAULT NULL,
    clear_source boolean DEFAULT false,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', target_column, 'source', source_column, 'method', 'encrypt',
        -- As text, in which no nulls are stripped: they are for env_encrypt to refuse.
        'to_key', key_id, 'context', encryption_context::pg_catalog.text, 'aad_column', aad_column, 'aad_expression', aad_expression,
        'clear_source', clear_source, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures));
BEGIN
    run := envelope_internal.rotation_begin(p);
    CALL envelope_internal.rotation_loop(run, p);
END
$$;

REVOKE ALL ON PROCEDURE
    @extschema@.env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint)
    FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
    @extschema@.env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint)
    TO envelope_rotate;

COMMENT ON PROCEDURE @extschema@.env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint) IS
    'encrypt the plaintext of a column into a bytea column, online and resumable';
