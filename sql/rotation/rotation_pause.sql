-- Ends a batch, and waits as long as the limits of a run want it to. No lock and no snapshot is held for long meanwhile.
CREATE OR REPLACE PROCEDURE envelope_internal.rotation_pause(p pg_catalog.jsonb, pause pg_catalog.float8) LANGUAGE plpgsql AS $$
DECLARE
    naps CONSTANT integer := pg_catalog.ceil(pause);
BEGIN
    COMMIT;
    FOR nap IN 1..naps LOOP
        PERFORM pg_catalog.pg_sleep(pause OPERATOR(pg_catalog./) CAST(naps AS pg_catalog.float8));
        COMMIT;
    END LOOP;
    WHILE envelope_internal.rotation_lags(p) LOOP
        COMMIT;
        PERFORM pg_catalog.pg_sleep(0.5::pg_catalog.float8);
        COMMIT;
    END LOOP;
END
$$;

REVOKE ALL ON PROCEDURE envelope_internal.rotation_pause(jsonb, double precision) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE envelope_internal.rotation_pause(jsonb, double precision) TO envelope_rotate;

COMMENT ON PROCEDURE envelope_internal.rotation_pause(jsonb, double precision) IS
    'part of env_rotate: the end of a batch, and what a run waits for behind it';
