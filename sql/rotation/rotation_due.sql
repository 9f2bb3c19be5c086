-- Which data keys of a batch are to be changed. Those that KMS or the settings refuse are remembered for the pass, and their rows
-- are failures. If wrapped keys (to rewrap) or data keys are missing, nothing but those, which rotation_ask then asks KMS for, before
-- any row is locked. What it did not get is asked for here, when is_asked.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_due(
    run bigint, p jsonb, pass integer, leaf oid, found envelope_internal.dek_counts, is_asked boolean, INOUT refused bytea[],
    INOUT retired text[], OUT due bytea[], OUT donors bytea[], OUT missing bytea[], OUT due_rows bigint, OUT not_envelopes bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    method text := p ->> 'method';
    to_key text := p ->> 'to_key';
    target text;
    failure jsonb;
    ready bytea[] := '{}';
    failed record;
    old_key text;
BEGIN
    IF method = 'encrypt' THEN
        -- Makes the data key, if that is due.
        PERFORM envelope_internal.encrypt(''::text, to_key, (p ->> 'context')::jsonb);
    END IF;
    -- Adopted rows get a value instead.
    not_envelopes := CASE method WHEN 'encrypt' THEN 0 ELSE found.strange END;
    missing := '{}';
    IF found.stubs = '{}' AND method IN ('rewrap', 'reencrypt') THEN
        -- As mostly, where the batches before have met all of its data keys.
        due := '{}';
        due_rows := 0;
        RETURN;
    END IF;
    due := envelope_internal.rotation_wanted(p, found.stubs);
    IF method = 'rewrap' THEN
        target := envelope_internal.rewrap_target(to_key);
        SELECT coalesce(array_agg(k.s) FILTER (WHERE k.donor IS NULL), '{}'),
               coalesce(array_agg(k.s) FILTER (WHERE k.donor IS NOT NULL), '{}'),
               coalesce(array_agg(k.donor) FILTER (WHERE k.donor IS NOT NULL), '{}')
        INTO missing, ready, donors
        FROM (
            -- What KMS has answered this session may not be there yet.
            SELECT u.s, coalesce(d.donor, CASE WHEN envelope_internal.may_rewrap(u.s, to_key)
                       THEN envelope_internal.rewrapped(u.s, to_key) END) AS donor
            FROM unnest(due) AS u (s)
            LEFT JOIN envelope_internal.rotation_donor AS d
                ON d.stub_hash = sha256(s) AND d.key_id = target AND envelope_internal.may_rewrap(s, to_key)
            WHERE NOT EXISTS (SELECT FROM unnest(refused) AS r (s) WHERE r.s = u.s) OFFSET 0) AS k;
        IF missing <> '{}' THEN
            RETURN;
        END IF;
    END IF;
    IF method = 'reencrypt' THEN
        due := envelope_internal.rotation_suspects(run, pass, due);
        INSERT INTO envelope_internal.rotation_dek (run_id, dek_id, key_id, is_new)
        SELECT run, envelope_internal.dek_id(s), min(envelope_internal.key_id(s)), false FROM unnest(due) AS u (s)
        GROUP BY 2 ON CONFLICT DO NOTHING;
    END IF;
    IF method <> 'rewrap' THEN
        SELECT coalesce(array_agg(s), '{}') INTO ready FROM unnest(due) AS u (s)
        WHERE NOT EXISTS (SELECT FROM unnest(refused) AS r (s) WHERE r.s = u.s);
        IF NOT is_asked THEN
            missing := ARRAY(SELECT s FROM unnest(ready) AS u (s) WHERE NOT envelope_internal.is_warm(s));
            IF missing <> '{}' THEN
                RETURN;
            END IF;
        END IF;
        SELECT w.* INTO ready, refused, failure FROM envelope_internal.rotation_warm(run, p, leaf, ready, refused) AS w;
        IF failure IS NOT NULL THEN
            PERFORM envelope_internal.rotation_raise(failure);
        END IF;
    END IF;
    IF method = 'reencrypt' THEN
        -- Has what is to seal them made. If that is refused it is no fault of theirs.
        PERFORM envelope_internal.reencrypt_warm(ready, to_key);
    END IF;
    IF method = 'rewrap' OR (method = 'reencrypt' AND pass > 1) THEN
        -- Sessions that seal with these data keys, by whatever name of the key, take new ones from now on: what an alias stands for
        -- by now, and none that this pass would have to change. Once for each key and pass; NULL: not at all.
        FOR old_key IN
            SELECT DISTINCT k FROM unnest(ready) AS u (s), envelope_internal.key_id(s) AS k WHERE k <> ALL ($8)
        LOOP
            retired := retired || old_key;
            BEGIN
                PERFORM envelope_internal.rotate_dek(old_key);
            EXCEPTION WHEN OTHERS THEN
                IF envelope_internal.rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                    RAISE;
                END IF;
            END;
        END LOOP;
    END IF;
    FOR failed IN
        SELECT u.s, u.n FROM unnest(found.stubs, found.counts) AS u (s, n)
        WHERE EXISTS (SELECT FROM unnest(due) AS d (s) WHERE d.s = u.s) AND EXISTS (SELECT FROM unnest(refused) AS r (s) WHERE r.s = u.s)
    LOOP
        PERFORM envelope_internal.rotation_fail(run, leaf, NULL::tid, failed.s, failed.n, '22023', 'data key was refused');
    END LOOP;
    -- To adopt: those that are left alone.
    due := CASE method WHEN 'encrypt' THEN ARRAY(SELECT s FROM unnest(due) AS u (s)
                                                 WHERE EXISTS (SELECT FROM unnest(refused) AS r (s) WHERE r.s = u.s)) ELSE ready END;
    SELECT coalesce(sum(n), 0) INTO due_rows FROM unnest(found.stubs, found.counts) AS u (s, n)
    WHERE EXISTS (SELECT FROM unnest(due) AS d (s) WHERE d.s = u.s);
END
$$;

-- The first pass of reencrypt changes whatever is not under a data key of its run. Others may seal with data keys of their own
-- meanwhile, so later passes look for those that the first one has met, and for those of another key. PL/pgSQL keeps the plan.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_suspects(run bigint, pass integer, INOUT stubs bytea[])
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
BEGIN
    SELECT coalesce(array_agg(s), '{}') INTO stubs FROM unnest($3) AS u (s)
    LEFT JOIN envelope_internal.rotation_dek AS d ON d.run_id = run AND d.dek_id = envelope_internal.dek_id(s)
    WHERE d.is_new IS NOT TRUE
      AND (pass = 1 OR d.is_new IS FALSE OR NOT EXISTS (
          SELECT FROM envelope_internal.rotation_dek AS n
          WHERE n.run_id = run AND n.is_new AND envelope_internal.is_same_key(n.key_id, envelope_internal.key_id(s))));
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_suspects(bigint, integer, bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_suspects(bigint, integer, bytea[]) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_suspects(bigint, integer, bytea[]) IS
    'part of env_rotate: the data keys that reencrypt changes';

-- Those of the batches before that may still be changed, and are ready to be.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_known(p jsonb, INOUT stubs bytea[], INOUT donors bytea[])
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p ->> 'method' = 'rewrap' THEN
        SELECT coalesce(array_agg(s), '{}'), array_agg(d) INTO stubs, donors FROM unnest($2, $3) AS u (s, d)
        WHERE envelope_internal.may_rewrap(s, p ->> 'to_key');
    ELSE
        PERFORM envelope_internal.reencrypt_warm(stubs, p ->> 'to_key');
    END IF;
EXCEPTION WHEN OTHERS THEN
    -- rotation_due finds out which of them it is about.
    stubs := '{}';
    donors := '{}';
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_known(jsonb, bytea[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_known(jsonb, bytea[], bytea[]) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_known(jsonb, bytea[], bytea[]) IS
    'part of env_rotate: which data keys of the batches before are ready for this one';

REVOKE ALL ON FUNCTION envelope_internal.rotation_due(bigint, jsonb, integer, oid, envelope_internal.dek_counts, boolean, bytea[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_due(bigint, jsonb, integer, oid, envelope_internal.dek_counts, boolean, bytea[], text[])
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_due(bigint, jsonb, integer, oid, envelope_internal.dek_counts, boolean, bytea[], text[]) IS
    'part of env_rotate: which data keys of a batch are to be changed';
