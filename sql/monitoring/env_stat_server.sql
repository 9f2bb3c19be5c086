CREATE OR REPLACE FUNCTION envelope_internal.stat_server_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_server_json';

CREATE OR REPLACE VIEW @extschema@.env_stat_server AS
SELECT
    broker_avoided_seconds, sessions_on_their_own, own_calls, serving_stale,
    pg_catalog.to_timestamp(last_stale) AS last_stale, damaged_values,
    cache_hits, cache_misses, cache_evictions, cache_evicted_needed, fullest_cache
FROM pg_catalog.jsonb_to_recordset(envelope_internal.stat_server_json()) AS row_(
    broker_avoided_seconds double precision, sessions_on_their_own bigint, own_calls bigint, serving_stale boolean,
    last_stale double precision, damaged_values bigint,
    cache_hits bigint, cache_misses bigint, cache_evictions bigint, cache_evicted_needed bigint,
    fullest_cache double precision
);

REVOKE ALL ON FUNCTION envelope_internal.stat_server_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.stat_server_json() TO envelope_admin, pg_monitor;
GRANT SELECT ON @extschema@.env_stat_server TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.stat_server_json() IS
    'row of the view env_stat_server';
COMMENT ON VIEW @extschema@.env_stat_server IS
    'what goes on in all sessions of the server, with the broker or without it: one row, for which no broker is asked';
