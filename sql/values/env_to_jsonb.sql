CREATE OR REPLACE FUNCTION @extschema@.env_to_jsonb(value anyelement) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 50 AS 'MODULE_PATHNAME', 'env_to_jsonb';

COMMENT ON FUNCTION @extschema@.env_to_jsonb(anyelement) IS
    'a value of any type as jsonb that is the same in every session; (jsonb #>> ''{}'')::type gives it back';
