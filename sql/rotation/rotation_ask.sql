-- The data keys among these that the run is about, as far as its parameters say, and are not there already.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_wanted(p jsonb, INOUT stubs bytea[])
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
BEGIN
    SELECT coalesce(array_agg(s), '{}') INTO stubs FROM unnest($2) AS u (s)
    WHERE (p ->> 'from_key' IS NULL OR envelope_internal.is_same_key(envelope_internal.key_id(s), p ->> 'from_key'))
      AND (p ->> 'from_dek' IS NULL OR encode(envelope_internal.dek_id(s), 'hex') = p ->> 'from_dek')
      AND (p ->> 'method' <> 'rewrap'
           OR envelope_internal.key_id(s) IS DISTINCT FROM envelope_internal.rewrap_target(p ->> 'to_key')
           OR cardinality(envelope_internal.key_ids(s)) <> 1);
END
$$;

-- To rewrap, has KMS wrap the data keys of these stubs that it has not wrapped for this run or another one to the same key, many at a
-- time. Committed before rows are changed, so that each is wrapped once whatever happens. Says which are refused; and what ends the
-- CALL, such as an outage, is raised by rotation_raise once the others are committed. Else has them unwrapped, not more than a session
-- has room for; what keeps one from being so, rotation_due finds out.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_ask(
    run bigint, p jsonb, pass integer, leaf oid, stubs bytea[], INOUT refused bytea[], OUT failure jsonb
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    to_key text := p ->> 'to_key';
    missing bytea[] := envelope_internal.rotation_wanted(p, stubs);
BEGIN
    IF p ->> 'method' = 'reencrypt' THEN
        missing := envelope_internal.rotation_suspects(run, pass, missing);
    END IF;
    missing := ARRAY(SELECT s FROM unnest(missing) AS u (s) WHERE NOT EXISTS (SELECT FROM unnest($6) AS r (s) WHERE r.s = u.s));
    IF p ->> 'method' <> 'rewrap' THEN
        missing := ARRAY(SELECT s FROM unnest(missing) AS u (s) WHERE NOT envelope_internal.is_warm(s) LIMIT 1000);
        SELECT w.refused, w.failure INTO refused, failure FROM envelope_internal.rotation_warm(run, p, leaf, missing, refused) AS w;
        RETURN;
    END IF;
    PERFORM envelope_internal.rotation_donors_lock();
    IF envelope_internal.rewrap_target(to_key) IS NULL AND missing <> '{}' THEN
        -- What an alias stands for is known with the first answer, and so which of the others are there already.
        BEGIN
            PERFORM envelope_internal.rewrap_warm(missing[1:1], to_key);
        EXCEPTION WHEN OTHERS THEN
            -- It is asked for again below.
            NULL;
        END;
    END IF;
    missing := ARRAY(SELECT s FROM unnest(missing) AS u (s)
                     WHERE NOT EXISTS (SELECT FROM envelope_internal.rotation_donor AS d
                                       WHERE d.stub_hash = sha256(s) AND d.key_id = envelope_internal.rewrap_target(to_key)
                                         AND envelope_internal.may_rewrap(s, to_key)));
    SELECT w.* INTO missing, refused, failure FROM envelope_internal.rotation_warm(run, p, leaf, missing, refused) AS w;
    PERFORM envelope_internal.rotation_donors_keep(missing, to_key);
END
$$;

-- Has the data keys of these stubs wrapped or unwrapped: all at once, and where one of them is refused one by one. Those that are
-- refused are failures; how many rows each has is counted batch by batch. failure is what ends the CALL, such as an outage.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_warm(
    run bigint, p jsonb, leaf oid, INOUT stubs bytea[], INOUT refused bytea[], OUT failure jsonb
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    at_once integer := cardinality(stubs);
    place integer := 1;
    part bytea[];
    message text;
    detail text;
    hint text;
BEGIN
    WHILE place <= cardinality(stubs) LOOP
        part := stubs[place : place + at_once - 1];
        BEGIN
            IF p ->> 'method' = 'rewrap' THEN
                PERFORM envelope_internal.rewrap_warm(part, p ->> 'to_key');
            ELSE
                PERFORM envelope_internal.reencrypt_warm(part, NULL::text);
            END IF;
            place := place + at_once;
        EXCEPTION WHEN OTHERS THEN
            IF envelope_internal.rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
                failure := jsonb_build_object('code', SQLSTATE, 'message', message, 'detail', detail, 'hint', hint);
                RETURN;
            ELSIF at_once > 1 THEN
                at_once := 1;
            ELSE
                refused := refused || part;
                stubs := array_remove(stubs, part[1]);
                PERFORM envelope_internal.rotation_fail(run, leaf, NULL::tid, part[1], 0::bigint, SQLSTATE, SQLERRM);
            END IF;
        END;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION envelope_internal.rotation_raise(failure jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
BEGIN
    RAISE '%', failure ->> 'message'
        USING ERRCODE = failure ->> 'code', DETAIL = failure ->> 'detail', HINT = failure ->> 'hint';
END
$$;

REVOKE ALL ON FUNCTION
    envelope_internal.rotation_wanted(jsonb, bytea[]),
    envelope_internal.rotation_ask(bigint, jsonb, integer, oid, bytea[], bytea[]),
    envelope_internal.rotation_warm(bigint, jsonb, oid, bytea[], bytea[]),
    envelope_internal.rotation_raise(jsonb)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_wanted(jsonb, bytea[]),
    envelope_internal.rotation_ask(bigint, jsonb, integer, oid, bytea[], bytea[]),
    envelope_internal.rotation_warm(bigint, jsonb, oid, bytea[], bytea[]),
    envelope_internal.rotation_raise(jsonb)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_wanted(jsonb, bytea[]) IS
    'part of env_rotate: the data keys that a run is about';
COMMENT ON FUNCTION envelope_internal.rotation_ask(bigint, jsonb, integer, oid, bytea[], bytea[]) IS
    'part of env_rotate: have KMS wrap the data keys that are missing';
COMMENT ON FUNCTION envelope_internal.rotation_warm(bigint, jsonb, oid, bytea[], bytea[]) IS
    'part of env_rotate: have data keys wrapped or unwrapped, and say which are refused';
COMMENT ON FUNCTION envelope_internal.rotation_raise(jsonb) IS
    'part of env_rotate: the error that rotation_ask met';
