CREATE OR REPLACE FUNCTION envelope_internal.stat_broker_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_broker_json';

CREATE OR REPLACE VIEW @extschema@.env_stat_broker AS
SELECT
    pid, pg_catalog.to_timestamp(started) AS started, requests, answered_from_memory, connections, data_keys,
    current_data_keys, unwrapped_ahead, open_breakers, waiting_calls, memory_bytes, responds,
    data_key_bytes, cache_hits, cache_misses, evictions, evicted_needed, data_key_capacity_bytes
FROM pg_catalog.jsonb_to_recordset(envelope_internal.stat_broker_json()) AS row_(
    pid integer, started double precision, requests bigint, answered_from_memory bigint, connections bigint,
    data_keys bigint, current_data_keys bigint, unwrapped_ahead bigint, open_breakers bigint, waiting_calls bigint,
    memory_bytes bigint, responds boolean, data_key_bytes bigint, cache_hits bigint, cache_misses bigint,
    evictions bigint, evicted_needed bigint, data_key_capacity_bytes bigint
);

REVOKE ALL ON FUNCTION envelope_internal.stat_broker_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.stat_broker_json() TO envelope_admin, pg_monitor;
GRANT SELECT ON @extschema@.env_stat_broker TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.stat_broker_json() IS
    'rows of the view env_stat_broker';
COMMENT ON VIEW @extschema@.env_stat_broker IS
    'the broker of the server, if one runs';
