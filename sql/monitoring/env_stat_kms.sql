CREATE OR REPLACE FUNCTION envelope_internal.stat_kms_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_kms_json';

CREATE OR REPLACE VIEW @extschema@.env_stat_kms AS
SELECT
    source, operation, key_id, calls,
    errors, errors_unreachable, errors_timed_out, errors_throttled, errors_no_credentials, errors_access_denied,
    errors_key_unusable, errors_not_found, errors_other,
    cancelled, not_tried, retries, throttled_attempts, stale_serves,
    latency_ms, max_latency_ms, latency_bounds_ms, latency_buckets,
    pg_catalog.to_timestamp(stats_reset) AS stats_reset, errors_untrusted,
    pg_catalog.to_timestamp(denied_since) AS denied_since
FROM pg_catalog.jsonb_to_recordset(envelope_internal.stat_kms_json()) AS row_(
    source text, operation text, key_id text, calls bigint,
    errors bigint, errors_unreachable bigint, errors_timed_out bigint, errors_throttled bigint,
    errors_no_credentials bigint, errors_access_denied bigint, errors_key_unusable bigint, errors_not_found bigint,
    errors_other bigint, errors_untrusted bigint,
    cancelled bigint, not_tried bigint, retries bigint, throttled_attempts bigint, stale_serves bigint,
    latency_ms double precision, max_latency_ms double precision, latency_bounds_ms bigint[], latency_buckets bigint[],
    stats_reset double precision, denied_since double precision
);

REVOKE ALL ON FUNCTION envelope_internal.stat_kms_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.stat_kms_json() TO envelope_admin, pg_monitor;
GRANT SELECT ON @extschema@.env_stat_kms TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.stat_kms_json() IS
    'rows of the view env_stat_kms';
COMMENT ON VIEW @extschema@.env_stat_kms IS
    'calls to KMS by operation and key: those of the broker for all sessions, and those that this session made itself';
