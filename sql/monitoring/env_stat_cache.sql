CREATE OR REPLACE FUNCTION envelope_internal.stat_cache_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_cache_json';

CREATE OR REPLACE VIEW @extschema@.env_stat_cache AS
SELECT
    purpose, named_key_id, key_id, dek_id, encryption_context, uses, age_seconds, ttl_seconds, state,
    cache_hits, cache_misses, cache_evictions, cache_evicted_needed
FROM pg_catalog.jsonb_to_recordset(envelope_internal.stat_cache_json()) AS row_(
    purpose text, named_key_id text, key_id text, dek_id bytea, encryption_context jsonb, uses bigint,
    age_seconds double precision, ttl_seconds double precision, state text, cache_hits bigint, cache_misses bigint,
    cache_evictions bigint, cache_evicted_needed bigint
);

REVOKE ALL ON FUNCTION envelope_internal.stat_cache_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.stat_cache_json()
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, pg_monitor;
GRANT SELECT ON
    @extschema@.env_stat_cache
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.stat_cache_json() IS
    'rows of the view env_stat_cache';
COMMENT ON VIEW @extschema@.env_stat_cache IS
    'the data keys of this session, without key material';
