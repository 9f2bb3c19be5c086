-- Which data keys of a batch are to be changed. Asks KMS for what that takes, many at a time, before any row is locked.
-- Those that KMS or the settings refuse are remembered for the CALL, and their rows are failures.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_due(
    run bigint, p jsonb, pass integer, leaf oid, stubs bytea[], counts bigint[], INOUT refused bytea[],
    OUT due bytea[], OUT due_rows bigint, OUT not_envelopes bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    method text := p ->> 'method';
    to_key text := p ->> 'to_key';
    from_dek bytea := decode(p ->> 'from_dek', 'hex');
    stub bytea;
    ready bytea[] := '{}';
    attempt integer := 0;
BEGIN
    IF method = 'encrypt' THEN
        -- Makes the data key, if that is due.
        PERFORM envelope_internal.encrypt(''::text, to_key, (p ->> 'context')::jsonb);
    END IF;
    -- Adopted rows get a value instead.
    SELECT coalesce(sum(n), 0) INTO not_envelopes FROM unnest(stubs, counts) AS u (s, n) WHERE s IS NULL AND method <> 'encrypt';
    IF method IN ('encrypt', 'decrypt') THEN
        due := array_remove(stubs, NULL);
    ELSE
        SELECT array_agg(s) INTO due FROM unnest(stubs) AS u (s)
        WHERE s IS NOT NULL
          AND (p ->> 'from_key' IS NULL OR envelope_internal.key_id(s) = p ->> 'from_key')
          AND (from_dek IS NULL OR envelope_internal.dek_id(s) = from_dek);
    END IF;
    IF method = 'reencrypt' THEN
        -- The first pass changes whatever is not under a data key of this run. Others may seal with data keys of their
        -- own meanwhile, so later passes look for those that the first one has met, and for those of another key.
        SELECT array_agg(s) INTO due FROM unnest(due) AS u (s)
        LEFT JOIN envelope_internal.rotation_dek AS d ON d.run_id = run AND d.dek_id = envelope_internal.dek_id(s)
        WHERE d.is_new IS NOT TRUE
          AND (pass = 1 OR d.is_new IS FALSE OR NOT EXISTS (
              SELECT FROM envelope_internal.rotation_dek AS n
              WHERE n.run_id = run AND n.is_new AND envelope_internal.is_same_key(n.key_id, envelope_internal.key_id(s))));
        INSERT INTO envelope_internal.rotation_dek (run_id, dek_id, key_id, is_new)
        SELECT run, envelope_internal.dek_id(s), min(envelope_internal.key_id(s)), false FROM unnest(due) AS u (s)
        GROUP BY 2 ON CONFLICT DO NOTHING;
    END IF;
    due := coalesce(due, '{}');
    -- Asking can tell what an alias stands for, and so which values are under it already.
    WHILE attempt < 2 AND due <> '{}' LOOP
        attempt := attempt + 1;
        IF method = 'rewrap' THEN
            SELECT coalesce(array_agg(s), '{}') INTO due FROM unnest(due) AS u (s)
            WHERE envelope_internal.key_id(s) IS DISTINCT FROM envelope_internal.rewrap_target(to_key)
               OR cardinality(envelope_internal.key_ids(s)) <> 1;
        END IF;
        SELECT coalesce(array_agg(s), '{}') INTO ready FROM unnest(due) AS u (s) WHERE s <> ALL (refused);
        EXIT WHEN ready = '{}' OR attempt = 2;
        BEGIN
            PERFORM envelope_internal.rotation_warm(method, ready, to_key);
        EXCEPTION WHEN OTHERS THEN
            IF envelope_internal.rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                RAISE;
            END IF;
            FOREACH stub IN ARRAY ready LOOP
                BEGIN
                    PERFORM envelope_internal.rotation_warm(method, ARRAY[stub], to_key);
                EXCEPTION WHEN OTHERS THEN
                    IF envelope_internal.rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                        RAISE;
                    END IF;
                    refused := refused || stub;
                    PERFORM envelope_internal.rotation_fail(run, leaf, NULL, stub, counts[array_position(stubs, stub)],
                        SQLSTATE, SQLERRM);
                    -- Counted here; below what was refused in an earlier batch is.
                    counts[array_position(stubs, stub)] := 0;
                END;
            END LOOP;
        END;
    END LOOP;
    SELECT coalesce(array_agg(s), '{}') INTO ready FROM unnest(due) AS u (s) WHERE s <> ALL (refused);
    IF method = 'reencrypt' THEN
        -- Has what is to seal them made. If that is refused it is no fault of theirs.
        PERFORM envelope_internal.reencrypt_warm(ready, to_key);
    END IF;
    UPDATE envelope_internal.rotation_run AS r
    SET failures = failures + (SELECT coalesce(sum(n), 0) FROM unnest(stubs, counts) AS u (s, n)
                               WHERE s = ANY (due) AND s = ANY (refused))
    WHERE r.run_id = run AND refused <> '{}';
    due := CASE method WHEN 'encrypt' THEN ARRAY(SELECT s FROM unnest(due) AS u (s) WHERE s = ANY (refused)) ELSE ready END;
    SELECT coalesce(sum(n), 0) INTO due_rows FROM unnest(stubs, counts) AS u (s, n) WHERE s = ANY (due);
    -- The array is searched for each batch; beyond this KMS is asked again instead.
    refused := refused[1:1000];
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[])
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]) IS
    'part of env_rotate: which data keys of a batch are to be changed';
