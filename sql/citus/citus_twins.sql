-- What env_rotate, env_encrypt_column and env_decrypt_column have Citus's workers compute. Citus refuses an UPDATE whose VOLATILE or
-- STABLE functions take columns, since it would have to give all placements of a row one result: the tables that these are used for
-- have one placement of each row, or take what the coordinator has computed. So they say IMMUTABLE, and are for nobody else.
CREATE OR REPLACE FUNCTION envelope_internal.citus_reencrypt(value bytea, to_key text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE OR REPLACE FUNCTION envelope_internal.citus_reencrypt(value bytea, to_key text, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_encrypt(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext text, aad text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext bytea, aad text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext jsonb) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_opens_to(value bytea, plaintext jsonb, aad text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

-- As a column's plaintext becomes that of a value and back (rotation_conversion): these casts are STABLE where the type's are.
CREATE OR REPLACE FUNCTION envelope_internal.citus_to_jsonb(value anyelement) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 50 AS 'MODULE_PATHNAME', 'env_to_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.citus_to_text(value anyelement) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN value;
END
$$;

CREATE OR REPLACE FUNCTION envelope_internal.citus_from_text(value text, typed_null anyelement) RETURNS anyelement
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN value;
END
$$;

DO $$
DECLARE
    twin regprocedure;
BEGIN
    FOR twin IN SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'envelope_internal'::regnamespace
          AND p.proname IN ('citus_reencrypt', 'citus_encrypt', 'citus_decrypt', 'citus_decrypt_bytea', 'citus_decrypt_jsonb',
                            'citus_opens_to', 'citus_to_jsonb', 'citus_to_text', 'citus_from_text')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', twin);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO envelope_rotate', twin);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', twin, 'part of env_rotate on Citus: what workers compute');
    END LOOP;
END
$$;
