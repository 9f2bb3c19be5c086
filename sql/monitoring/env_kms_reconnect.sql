CREATE OR REPLACE FUNCTION @extschema@.env_kms_reconnect() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_kms_reconnect';

REVOKE ALL ON FUNCTION @extschema@.env_kms_reconnect() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_kms_reconnect() TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_kms_reconnect() IS
    'have all processes of the server make new connections to KMS, with credentials and certificates read anew';
