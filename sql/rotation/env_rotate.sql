CREATE OR REPLACE PROCEDURE @extschema@.env_rotate(
    relation pg_catalog.regclass,
    column_name pg_catalog.name,
    to_key pg_catalog.text,
    method pg_catalog.text DEFAULT 'rewrap',
    aad_column pg_catalog.name DEFAULT NULL,
    from_key pg_catalog.text DEFAULT NULL,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000,
    from_dek pg_catalog.bytea DEFAULT NULL,
    aad_expression pg_catalog.text DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', column_name, 'method', method, 'to_key', to_key,
        'aad_column', aad_column, 'from_key', from_key, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures,
        'from_dek', pg_catalog.encode(from_dek, 'hex'), 'aad_expression', aad_expression));
BEGIN
    run := envelope_internal.rotation_begin(p);
    CALL envelope_internal.rotation_loop(run, p);
END
$$;

REVOKE ALL ON PROCEDURE
    @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text)
    FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
    @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text)
    TO envelope_rotate;

COMMENT ON PROCEDURE @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text) IS
    'bring the encrypted values of a column under another KMS key (rewrap) or under new data keys (reencrypt), online and resumable';
