CREATE OR REPLACE FUNCTION @extschema@.env_is_same_key(key_id text, other_key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_is_same_key';

COMMENT ON FUNCTION @extschema@.env_is_same_key(text, text) IS
    'whether two key ARNs, or local:name, are the same key or replicas of the same multi-Region key';
