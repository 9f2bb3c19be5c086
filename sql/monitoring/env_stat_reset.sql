CREATE OR REPLACE FUNCTION @extschema@.env_stat_reset() RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_reset';

REVOKE ALL ON FUNCTION @extschema@.env_stat_reset() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_stat_reset() TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_stat_reset() IS
    'count the calls to KMS from zero again: those of the broker and those of this session';
