-- What a run would do: rows and data keys from the heads of a sample of the values, or of all; WAL and time from a trial, which
-- updates some rows and is rolled back. Asks KMS nothing, so what an alias stands for is not known unless this session has used it:
-- then all values count.
CREATE OR REPLACE FUNCTION @extschema@.env_rotation_plan(
    relation regclass, column_name name, to_key text, method text DEFAULT 'rewrap', from_key text DEFAULT '-',
    sample_percent double precision DEFAULT NULL, rows_per_second numeric DEFAULT NULL,
    usd_per_10000_requests numeric DEFAULT 0.03, trial_rows integer DEFAULT 4000,
    OUT sampled_percent double precision, OUT all_rows bigint, OUT null_rows bigint, OUT not_envelopes bigint,
    OUT rows_to_change bigint, OUT data_keys_seen bigint, OUT data_keys bigint, OUT keys text[], OUT kms_calls bigint,
    OUT price_usd numeric, OUT bytes_rewritten bigint, OUT wal_bytes bigint, OUT duration interval,
    OUT rows_tried bigint, OUT obstacles text[]
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
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
    average_bytes double precision;
    trial record;
    largest oid;
    pages bigint;
    index_pages bigint;
    index_count bigint;
    toast_pages double precision;
    imaged double precision;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object(
        'relation', relation::oid, 'column_name', column_name, 'to_key', to_key, 'method', method, 'from_key', from_key,
        'usd_per_10000_requests', usd_per_10000_requests, 'trial_rows', trial_rows));
    IF method NOT IN ('rewrap', 'reencrypt') THEN
        RAISE 'unknown method' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The methods are rewrap and reencrypt.';
    END IF;
    from_key := nullif(from_key, '-');
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p')) THEN
        RAISE '% is not a table', relation USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the table itself, not a view or a foreign table.';
    END IF;
    IF rows_per_second <= 0 OR usd_per_10000_requests < 0
        OR sample_percent <= 0 OR sample_percent > 100 OR trial_rows < 0 THEN
        RAISE 'rates and shares of a plan must be positive, and sample_percent 100 at most'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR leaf IN SELECT l.leaf FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r' LOOP
        IF row_security_active(leaf) THEN
            RAISE 'row-level security hides rows of % from role %', leaf::regclass, current_user
                USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role with BYPASSRLS, or the owner of the table.';
        END IF;
        PERFORM envelope_internal.rotation_trust(leaf);
    END LOOP;
    IF envelope_internal.rotation_type(relation, column_name) IS DISTINCT FROM 'bytea' THEN
        RAISE 'column "%" of % is %; an encrypted column is bytea', column_name, relation, coalesce((
            SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a
            WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped), 'not there')
            USING ERRCODE = 'datatype_mismatch', HINT = 'env_inventory_columns() lists the columns that can hold encrypted values.';
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
            SELECT stub, absent, count(*) AS n, sum(bytes) FILTER (WHERE bytes > 2000) AS toasted, sum(bytes) AS bytes
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
               (SELECT count(*) FROM due WHERE n = 1) AS once, (SELECT coalesce(sum(toasted), 0) FROM due) AS toasted, (SELECT coalesce(sum(bytes), 0) FROM due) AS bytes,
               (SELECT avg(octet_length(stub)) FROM due) AS head_bytes,
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
    SELECT coalesce(sum(pg_relation_size(l.leaf, 'main') + coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)), 0) / block_bytes,
           coalesce(sum(pg_indexes_size(l.leaf)), 0) / block_bytes, coalesce(max((SELECT count(*) FROM pg_index WHERE indrelid = l.leaf)), 0)
    INTO pages, index_pages, index_count
    FROM envelope_internal.rotation_leaves(relation) AS l JOIN pg_class AS c ON c.oid = l.leaf WHERE l.kind = 'r';
    IF envelope_internal.citus_form(relation) IS NOT NULL THEN
        -- Those of the shards.
        EXECUTE 'SELECT (pg_catalog.citus_total_relation_size($1) - pg_catalog.citus_table_size($1)) / $2' INTO index_pages USING relation, block_bytes;
    END IF;
    SELECT NULL::bigint AS rows, NULL::double precision AS seconds INTO trial;
    average_bytes := found.bytes / greatest(found.due, 1)::double precision;
    -- On Citus the WAL is that of other nodes.
    IF rows_to_change > 0 AND trial_rows > 0 AND NOT pg_is_in_recovery() AND envelope_internal.citus_form(relation) IS NULL THEN
        SELECT l.leaf INTO largest FROM envelope_internal.rotation_leaves(relation) AS l WHERE l.kind = 'r'
        ORDER BY pg_relation_size(l.leaf) DESC, l.leaf LIMIT 1;
        -- Not more than 16 MB, nor than leaves many dead versions in a small table.
        SELECT * INTO trial FROM envelope_internal.rotation_trial(largest, column_name,
            greatest(least(trial_rows, greatest(1000, rows_to_change / 50), 16777216 / (average_bytes + 100)), 8)::bigint);
    END IF;
    IF trial.rows > 0 THEN
        rows_tried := trial.rows;
        -- What the last pass prunes, and the new row versions.
        wal_bytes := blocks * fraction * 60 + rows_to_change * 4 + rows_to_change / trial.rows::double precision
            -- Beside the old ones, in the same page, only what differs is in the WAL, and in the trial nothing does.
            * CASE WHEN trial.is_hot THEN trial.first_bytes
                + trial.rows * CASE method WHEN 'rewrap' THEN greatest(found.head_bytes - 90, 0) ELSE average_bytes END
              ELSE trial.second_bytes END;
        IF trial.images > 0 AND NOT trial.is_hot THEN
            -- Pages that were not written since the last checkpoint, those of the trial are by now, have an image of theirs in the WAL.
            toast_pages := found.toasted * scale / (block_bytes - 200);
            imaged := least(1, trial.images / (trial.blocks + toast_pages * trial.rows / rows_to_change));
            wal_bytes := wal_bytes + imaged * greatest(trial.first_bytes - trial.second_bytes, 0) / trial.images
                * greatest(1 - trial.rows / rows_to_change::double precision, 0)
                * (rows_to_change * greatest(trial.blocks - 2, 1) / trial.rows::double precision + toast_pages + index_pages * fraction);
        END IF;
    ELSE
        -- The new row versions, what goes with each and each of its index entries, and an image of each old page.
        wal_bytes := bytes_rewritten + rows_to_change * (75 + 75 * index_count)
            + CASE WHEN current_setting('full_page_writes')::boolean THEN (greatest(pages, blocks) + index_pages) * block_bytes * fraction ELSE 0 END;
    END IF;
    duration := make_interval(secs => CASE
        WHEN rows_per_second IS NOT NULL OR trial.rows IS NULL THEN rows_to_change / coalesce(rows_per_second, 20000)
        -- Beside the UPDATE: the passes and commits; to open and to seal each value takes a fifth more.
        ELSE rows_to_change * trial.seconds / trial.rows * CASE method WHEN 'rewrap' THEN 1.1 ELSE 1.3 END
        END::double precision);
    obstacles := envelope_internal.rotation_obstacles(jsonb_strip_nulls(jsonb_build_object(
        'relation', relation::oid, 'column', column_name, 'method', method, 'to_key', to_key, 'from_key', from_key)));
END
$$;

REVOKE ALL ON FUNCTION
    @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric, integer)
    TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric, integer) IS
    'what env_rotate would do: rows, data keys, KMS calls and their price, bytes, WAL and time, and what stands in its way; asks KMS nothing';
