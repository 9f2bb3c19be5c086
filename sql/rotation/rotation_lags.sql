-- Whether a run has to wait: for a standby that replays further behind than max_lag_seconds allows, which only who may see
-- pg_stat_replication sees; or for a replication slot that keeps more WAL than max_slot_bytes.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_lags(p jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
    RETURN (clock_timestamp() >= (p ->> 'deadline')::timestamptz) IS NOT TRUE AND (
        (p ? 'max_lag_seconds'
            AND EXISTS (SELECT FROM pg_stat_replication WHERE extract(epoch FROM replay_lag) > (p ->> 'max_lag_seconds')::numeric))
        OR (p ? 'max_slot_bytes'
            AND EXISTS (SELECT FROM pg_replication_slots
                        WHERE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > (p ->> 'max_slot_bytes')::numeric)));
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_lags(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_lags(jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_lags(jsonb) IS
    'part of env_rotate: whether a standby or a replication slot is too far behind';
