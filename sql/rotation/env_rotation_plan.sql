-- What a run would do, from the heads of a sample of the values, or of all. Asks KMS nothing, so what an alias stands for
-- is not known unless this session has used it: then all values count.
CREATE OR REPLACE FUNCTION @extschema@.env_rotation_plan(
    relation regclass, column_name name, to_key text, method text DEFAULT 'rewrap', from_key text DEFAULT NULL,
    sample_percent double precision DEFAULT NULL, rows_per_second numeric DEFAULT 20000,
    usd_per_10000_requests numeric DEFAULT 0.03,
    OUT sampled_percent double precision, OUT all_rows bigint, OUT null_rows bigint, OUT not_envelopes bigint,
    OUT rows_to_change bigint, OUT data_keys_seen bigint, OUT data_keys bigint, OUT keys text[], OUT kms_calls bigint,
    OUT price_usd numeric, OUT bytes_rewritten bigint, OUT wal_bytes bigint, OUT duration interval
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    block_bytes bigint := current_setting('block_size')::bigint;
    blocks bigint;
    -- Above this many blocks (1 GB) about half as many are read.
    all_blocks bigint := 131072;
    leaf oid;
    scan text;
    found record;
    scale double precision;
    fraction double precision;
BEGIN
    IF method IS NULL OR method NOT IN ('rewrap', 'reencrypt') THEN
        RAISE 'unknown method "%"', method USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The methods are rewrap and reencrypt.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p')) THEN
        RAISE '% is not a table', relation USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the table itself, not a view or a foreign table.';
    END IF;
    IF coalesce(rows_per_second <= 0, true) OR coalesce(usd_per_10000_requests < 0, true)
        OR sample_percent <= 0 OR sample_percent > 100 THEN
        RAISE 'rates and shares of a plan must be positive, and sample_percent 100 at most'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR leaf IN SELECT l.leaf FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r' LOOP
        IF row_security_active(leaf) THEN
            RAISE 'row-level security hides rows of % from role %', leaf::regclass, current_user
                USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role with BYPASSRLS, or the owner of the table.';
        END IF;
    END LOOP;
    IF envelope_internal.rotation_type(relation, column_name) IS DISTINCT FROM 'bytea' THEN
        RAISE 'relation % has no bytea column "%"', relation, column_name USING ERRCODE = 'undefined_column';
    END IF;
    SELECT coalesce(sum((envelope_internal.rotation_extent(l.leaf)).bytes), 0) / block_bytes INTO blocks
    FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r';
    sampled_percent := coalesce(sample_percent, CASE WHEN blocks > all_blocks THEN 50.0 * all_blocks / blocks ELSE 100 END);
    SELECT string_agg(format('SELECT v.%I AS value FROM ONLY %s AS v %s', column_name, l.leaf::regclass,
        CASE WHEN sampled_percent < 100 THEN format('TABLESAMPLE SYSTEM (%s) REPEATABLE (1)', sampled_percent) END), ' UNION ALL ')
    INTO scan FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r';
    -- A partitioned table can be without partitions.
    scan := coalesce(scan, 'SELECT NULL::bytea AS value WHERE false');
    EXECUTE format('
        WITH dek AS (
            SELECT stub, absent, count(*) AS n, sum(bytes) FILTER (WHERE bytes > 2000) AS toasted
            FROM (SELECT envelope_internal.dek_stub(value) AS stub, value IS NULL AS absent, pg_column_size(value) AS bytes
                  FROM (%s) AS s) AS r
            GROUP BY stub, absent),
        due AS (
            SELECT *, envelope_internal.key_id(stub) AS key_id FROM dek
            WHERE stub IS NOT NULL AND ($1 IS NULL OR envelope_internal.is_same_key(envelope_internal.key_id(stub), $1))
              AND ($2 <> ''rewrap'' OR envelope_internal.key_id(stub) IS DISTINCT FROM envelope_internal.rewrap_target($3)))
        SELECT coalesce(sum(n), 0) AS n, coalesce(sum(n) FILTER (WHERE absent), 0) AS nulls,
               coalesce(sum(n) FILTER (WHERE stub IS NULL AND NOT absent), 0) AS strange,
               (SELECT coalesce(sum(n), 0) FROM due) AS due, (SELECT count(*) FROM due) AS deks,
               (SELECT count(*) FROM due WHERE n = 1) AS once, (SELECT coalesce(sum(toasted), 0) FROM due) AS toasted,
               (SELECT array_agg(DISTINCT key_id ORDER BY key_id) FROM due) AS keys,
               (SELECT count(DISTINCT envelope_internal.encryption_context(stub)) FROM due) AS contexts
        FROM dek', scan) INTO found USING from_key, method, to_key;
    scale := 100 / sampled_percent;
    all_rows := found.n * scale;
    null_rows := found.nulls * scale;
    not_envelopes := found.strange * scale;
    rows_to_change := found.due * scale;
    data_keys_seen := found.deks;
    -- Haas and Stokes' estimator Duj1, as ANALYZE uses it: of the data keys that were met once, many more were missed.
    data_keys := CASE WHEN found.due = 0 THEN 0
        ELSE found.deks * found.due / (found.due - found.once + found.once * found.due / (found.due * scale)) END;
    keys := coalesce(found.keys, '{}');
    kms_calls := data_keys + CASE method WHEN 'reencrypt' THEN found.contexts ELSE 0 END;
    price_usd := round(kms_calls * usd_per_10000_requests / 10000, 6);
    fraction := found.due / greatest(found.n, 1)::double precision;
    bytes_rewritten := blocks * block_bytes * fraction + found.toasted * scale;
    -- The new row versions, what goes with each, and an image of each old page, which is written again after a checkpoint.
    wal_bytes := bytes_rewritten + rows_to_change * 100
        + CASE WHEN current_setting('full_page_writes')::boolean THEN blocks * block_bytes * least(1, fraction * 10) ELSE 0 END;
    duration := make_interval(secs => (rows_to_change / rows_per_second)::double precision);
END
$$;

REVOKE ALL ON FUNCTION
    @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric)
    TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric) IS
    'what env_rotate would do: rows, data keys, KMS calls and their price, bytes, WAL and time; asks KMS nothing';
