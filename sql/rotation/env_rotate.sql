CREATE OR REPLACE PROCEDURE @extschema@.env_rotate(
    relation pg_catalog.regclass,
    column_name pg_catalog.name,
    to_key pg_catalog.text,
    method pg_catalog.text DEFAULT 'rewrap',
    aad_column pg_catalog.name DEFAULT '-',
    from_key pg_catalog.text DEFAULT '-',
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000,
    from_dek pg_catalog.bytea DEFAULT '-',
    aad_expression pg_catalog.text DEFAULT '-',
    max_seconds numeric DEFAULT NULL,
    until pg_catalog.timestamptz DEFAULT NULL,
    max_lag_seconds numeric DEFAULT NULL,
    max_slot_bytes numeric DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    -- What was not given says '-', so that a null that was meant as a restriction is none by accident.
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', column_name, 'method', method, 'to_key', to_key,
        'aad_column', CASE WHEN aad_column IS NULL THEN 'env:null'
            WHEN aad_column OPERATOR(pg_catalog.<>) '-' THEN aad_column::pg_catalog.text END,
        'from_key', CASE WHEN from_key IS NULL THEN 'env:null'
            WHEN from_key OPERATOR(pg_catalog.<>) '-' THEN from_key::pg_catalog.text END,
        'batch_blocks', batch_blocks, 'on_locked', on_locked, 'max_rows_per_second', max_rows_per_second,
        'max_passes', max_passes, 'max_failures', max_failures, 'max_lag_seconds', max_lag_seconds, 'max_slot_bytes', max_slot_bytes,
        'deadline', LEAST(until, pg_catalog.clock_timestamp()
            OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => max_seconds::pg_catalog.float8)),
        'from_dek', CASE WHEN from_dek IS NULL THEN 'env:null'
            WHEN from_dek OPERATOR(pg_catalog.<>) '-'::pg_catalog.bytea THEN pg_catalog.encode(from_dek, 'hex') END,
        'aad_expression', CASE WHEN aad_expression IS NULL THEN 'env:null'
            WHEN aad_expression OPERATOR(pg_catalog.<>) '-' THEN aad_expression::pg_catalog.text END));
BEGIN
    run := envelope_internal.rotation_begin(p);
    CALL envelope_internal.rotation_loop(run, p);
END
$$;

REVOKE ALL ON PROCEDURE
    @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text, numeric, timestamptz, numeric, numeric)
    FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
    @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text, numeric, timestamptz, numeric, numeric)
    TO envelope_rotate;

COMMENT ON PROCEDURE @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text, numeric, timestamptz, numeric, numeric) IS
    'bring the encrypted values of a column under another KMS key (rewrap) or under new data keys (reencrypt), online and resumable';
