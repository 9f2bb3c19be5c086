-- NULL for a value that is damaged, and for no other reason: it is counted, and env_error says what is wrong.
CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt(value bytea) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_try_decrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_try_decrypt_text';

CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_try_decrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_try_decrypt_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_try_decrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_try_decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_try_decrypt_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_error(value bytea) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_error';

CREATE OR REPLACE FUNCTION @extschema@.env_error(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_error';

CREATE OR REPLACE FUNCTION @extschema@.env_damaged_values() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_damaged_values';

REVOKE ALL ON FUNCTION
    @extschema@.env_try_decrypt(bytea),
    @extschema@.env_try_decrypt(bytea, text),
    @extschema@.env_try_decrypt_bytea(bytea),
    @extschema@.env_try_decrypt_bytea(bytea, text),
    @extschema@.env_try_decrypt_jsonb(bytea),
    @extschema@.env_try_decrypt_jsonb(bytea, text),
    @extschema@.env_error(bytea),
    @extschema@.env_error(bytea, text),
    @extschema@.env_damaged_values()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_try_decrypt(bytea),
    @extschema@.env_try_decrypt(bytea, text),
    @extschema@.env_try_decrypt_bytea(bytea),
    @extschema@.env_try_decrypt_bytea(bytea, text),
    @extschema@.env_try_decrypt_jsonb(bytea),
    @extschema@.env_try_decrypt_jsonb(bytea, text),
    @extschema@.env_error(bytea),
    @extschema@.env_error(bytea, text)
    TO envelope_decrypt;
GRANT EXECUTE ON FUNCTION @extschema@.env_damaged_values() TO envelope_decrypt, envelope_admin, pg_monitor;

COMMENT ON FUNCTION @extschema@.env_try_decrypt(bytea) IS
    'env_decrypt, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_try_decrypt(bytea, text) IS
    'env_decrypt with an aad, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_try_decrypt_bytea(bytea) IS
    'env_decrypt_bytea, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_try_decrypt_bytea(bytea, text) IS
    'env_decrypt_bytea with an aad, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_try_decrypt_jsonb(bytea) IS
    'env_decrypt_jsonb, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_try_decrypt_jsonb(bytea, text) IS
    'env_decrypt_jsonb with an aad, but null for a damaged value, which is counted; a denial or an outage is an error';
COMMENT ON FUNCTION @extschema@.env_error(bytea) IS
    'why a value does not open: SQLSTATE and message; null if it does';
COMMENT ON FUNCTION @extschema@.env_error(bytea, text) IS
    'why a value with an aad does not open: SQLSTATE and message; null if it does';
COMMENT ON FUNCTION @extschema@.env_damaged_values() IS
    'values that env_try_decrypt could not open since the server started';
