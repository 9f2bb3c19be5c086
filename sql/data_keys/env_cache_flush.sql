-- This session's cache.
CREATE OR REPLACE FUNCTION @extschema@.env_cache_flush() RETURNS integer
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_cache_flush';

CREATE OR REPLACE FUNCTION @extschema@.env_cache_flush(everywhere boolean) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_cache_flush';

REVOKE ALL ON FUNCTION @extschema@.env_cache_flush(), @extschema@.env_cache_flush(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_cache_flush()
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin;
GRANT EXECUTE ON FUNCTION @extschema@.env_cache_flush(boolean) TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_cache_flush() IS
    'forget the data keys of this session; returns how many there were';
COMMENT ON FUNCTION @extschema@.env_cache_flush(boolean) IS
    'forget the data keys of this session, and with true those of all sessions and of the broker; returns how many this session had';
