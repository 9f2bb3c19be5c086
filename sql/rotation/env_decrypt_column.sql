CREATE OR REPLACE PROCEDURE @extschema@.env_decrypt_column(
    relation pg_catalog.regclass,
    source_column pg_catalog.name,
    target_column pg_catalog.name,
    aad_column pg_catalog.name DEFAULT '-',
    aad_expression pg_catalog.text DEFAULT '-',
    clear_source boolean DEFAULT false,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000,
    max_seconds numeric DEFAULT NULL,
    until pg_catalog.timestamptz DEFAULT NULL,
    max_lag_seconds numeric DEFAULT NULL,
    max_slot_bytes numeric DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    -- What was not given says '-', so that a null that was meant as a restriction is none by accident.
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', target_column, 'source', source_column, 'method', 'decrypt',
        'aad_column', CASE WHEN aad_column IS NULL THEN 'env:null'
            WHEN aad_column OPERATOR(pg_catalog.<>) '-' THEN aad_column::pg_catalog.text END,
        'aad_expression', CASE WHEN aad_expression IS NULL THEN 'env:null'
            WHEN aad_expression OPERATOR(pg_catalog.<>) '-' THEN aad_expression::pg_catalog.text END,
        'clear_source', clear_source, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures,
        'max_lag_seconds', max_lag_seconds, 'max_slot_bytes', max_slot_bytes,
        'deadline', LEAST(until, pg_catalog.clock_timestamp()
            OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => max_seconds::pg_catalog.float8))));
BEGIN
    run := envelope_internal.rotation_begin(p);
    CALL envelope_internal.rotation_loop(run, p);
END
$$;

REVOKE ALL ON PROCEDURE
    @extschema@.env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint, numeric, timestamptz, numeric, numeric)
    FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
    @extschema@.env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint, numeric, timestamptz, numeric, numeric)
    TO envelope_rotate;

COMMENT ON PROCEDURE @extschema@.env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint, numeric, timestamptz, numeric, numeric) IS
    'decrypt the values of a bytea column into a plaintext column, online and resumable';
