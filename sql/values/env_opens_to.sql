CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext text, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext bytea) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext bytea, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext jsonb) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE OR REPLACE FUNCTION @extschema@.env_opens_to(value bytea, plaintext jsonb, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

REVOKE ALL ON FUNCTION
    @extschema@.env_opens_to(bytea, text),
    @extschema@.env_opens_to(bytea, text, text),
    @extschema@.env_opens_to(bytea, bytea),
    @extschema@.env_opens_to(bytea, bytea, text),
    @extschema@.env_opens_to(bytea, jsonb),
    @extschema@.env_opens_to(bytea, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_opens_to(bytea, text),
    @extschema@.env_opens_to(bytea, text, text),
    @extschema@.env_opens_to(bytea, bytea),
    @extschema@.env_opens_to(bytea, bytea, text),
    @extschema@.env_opens_to(bytea, jsonb),
    @extschema@.env_opens_to(bytea, jsonb, text)
    TO envelope_decrypt;

COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, text) IS
    'whether an encrypted value opens to this text';
COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, text, text) IS
    'whether an encrypted value with an aad opens to this text';
COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, bytea) IS
    'whether an encrypted value opens to this bytea';
COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, bytea, text) IS
    'whether an encrypted value with an aad opens to this bytea';
COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, jsonb) IS
    'whether an encrypted value opens to this jsonb';
COMMENT ON FUNCTION @extschema@.env_opens_to(bytea, jsonb, text) IS
    'whether an encrypted value with an aad opens to this jsonb';
