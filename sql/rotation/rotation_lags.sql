-- Whether a run has to wait for a standby: one that replays is further behind than max_lag_seconds allows. Only who may see
-- pg_stat_replication sees that.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_lags(p jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
    RETURN p ? 'max_lag_seconds'
        AND (clock_timestamp() >= (p ->> 'deadline')::timestamptz) IS NOT TRUE
        AND coalesce((SELECT max(extract(epoch FROM replay_lag)) > (p ->> 'max_lag_seconds')::numeric FROM pg_stat_replication), false);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_lags(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_lags(jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_lags(jsonb) IS
    'part of env_rotate: whether a standby is too far behind';
