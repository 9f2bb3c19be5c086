-- What KMS has made of data keys for runs: a stub with the new wrapped keys, for each stub that was met. Other runs to the same
-- key, in other sessions, take it from here. Nobody but the function below writes it, and what that writes is what KMS
-- answered this session: a wrapped key that somebody else put here could make values unreadable.
CREATE TABLE IF NOT EXISTS envelope_internal.rotation_donor (
    stub_hash bytea NOT NULL,
    key_id    text NOT NULL,
    donor     bytea NOT NULL,
    made      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (stub_hash, key_id)
);

-- One session asks KMS at a time, for many data keys; the others find the answers. Who has waited for long asks, too: that costs
-- some calls, and whoever may lock it cannot keep others from rotating. SECURITY DEFINER as callers may not lock it.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_donors_lock() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET lock_timeout = '10s' AS $$
BEGIN
    -- A mode that those who write to it do not wait for.
    LOCK TABLE envelope_internal.rotation_donor IN SHARE UPDATE EXCLUSIVE MODE;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$;

CREATE OR REPLACE FUNCTION envelope_internal.rotation_donors_keep(stubs bytea[], to_key text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on
    SET lock_timeout = '10s' AS $$
BEGIN
    INSERT INTO envelope_internal.rotation_donor (stub_hash, key_id, donor)
    SELECT sha256(stub), envelope_internal.key_id(donor), donor
    FROM unnest($1) AS stub CROSS JOIN LATERAL envelope_internal.rewrapped(stub, $2) AS donor
    WHERE donor IS NOT NULL
    ON CONFLICT DO NOTHING;
EXCEPTION WHEN lock_not_available THEN
    -- A transaction that is under way has put the same data key there: this session has its own answers.
    NULL;
END
$$;

-- With the last run that could need them.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_donors_drop() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
    DELETE FROM envelope_internal.rotation_donor
    WHERE NOT EXISTS (SELECT FROM envelope_internal.rotation_run WHERE method = 'rewrap' AND status = 'open')
$$;

GRANT SELECT ON envelope_internal.rotation_donor TO envelope_rotate;
REVOKE ALL ON FUNCTION
    envelope_internal.rotation_donors_lock(),
    envelope_internal.rotation_donors_keep(bytea[], text),
    envelope_internal.rotation_donors_drop()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_donors_lock(),
    envelope_internal.rotation_donors_keep(bytea[], text),
    envelope_internal.rotation_donors_drop()
    TO envelope_rotate;

COMMENT ON TABLE envelope_internal.rotation_donor IS
    'wrapped keys that KMS has made for runs of env_rotate';
COMMENT ON FUNCTION envelope_internal.rotation_donors_lock() IS
    'part of env_rotate: have one session at a time ask KMS for wrapped keys';
COMMENT ON FUNCTION envelope_internal.rotation_donors_keep(bytea[], text) IS
    'part of env_rotate: keep the wrapped keys that KMS has made for this session';
COMMENT ON FUNCTION envelope_internal.rotation_donors_drop() IS
    'part of env_rotate: forget wrapped keys that no run needs any more';
