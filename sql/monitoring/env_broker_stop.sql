CREATE OR REPLACE FUNCTION @extschema@.env_broker_stop() RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_broker_stop';

REVOKE ALL ON FUNCTION @extschema@.env_broker_stop() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_broker_stop() TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_broker_stop() IS
    'end the broker; the next session in need starts another one; returns whether there was one';
