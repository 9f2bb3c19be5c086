-- envelope_pg 0.1.0: the SQL surface. CREATE EXTENSION envelope_pg runs this file.
\echo Use "CREATE EXTENSION envelope_pg" to load this file. \quit

-- Group roles. They are shared by all databases of the server, so they are made once and never dropped.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['envelope_encrypt', 'envelope_decrypt', 'envelope_rotate', 'envelope_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
    END LOOP;
END
$$;

-- Encrypt. Overloads, not defaults, and not STRICT: a NULL key, context or aad is an error, never a silent NULL.

CREATE FUNCTION env_encrypt(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

-- The same under another label, because a generated column takes nothing but IMMUTABLE. What the label costs: where
-- all arguments are constants the planner evaluates the call once, and every row gets the same value.

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

-- Encrypt in a trigger. The arguments are those of CREATE TRIGGER: a JSON object for each column.

CREATE FUNCTION env_encrypt_trigger() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_trigger';

-- PostgreSQL checks this when the trigger is made, not when it fires.
REVOKE ALL ON FUNCTION env_encrypt_trigger() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_encrypt_trigger() TO envelope_encrypt;

COMMENT ON FUNCTION env_encrypt_trigger() IS
    'trigger BEFORE INSERT OR UPDATE FOR EACH ROW that encrypts columns: {"source": ..., "target": ..., "key_id": ...}';

-- Decrypt. STABLE and never IMMUTABLE: an index must not hold plaintext.

CREATE FUNCTION env_decrypt(value bytea) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE FUNCTION env_decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE FUNCTION env_decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE FUNCTION env_decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE FUNCTION env_decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE FUNCTION env_decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

-- Read the header: no key, no KMS call.

CREATE FUNCTION env_is_envelope(value bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_is_envelope';

-- Not STRICT, as with env_encrypt: a NULL key is an error, and never a CHECK that lets everything through.
CREATE FUNCTION env_is_envelope(value bytea, key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_is_envelope_of_key';

CREATE FUNCTION env_key_id(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_key_id';

CREATE FUNCTION env_key_ids(value bytea) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_key_ids';

CREATE FUNCTION env_is_same_key(key_id text, other_key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_is_same_key';

CREATE FUNCTION env_dek_id(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_dek_id';

CREATE FUNCTION env_encryption_context(value bytea) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_encryption_context';

CREATE FUNCTION env_inspect(
    value bytea,
    OUT format_version integer,
    OUT suite text,
    OUT type text,
    OUT has_aad boolean,
    OUT is_padded boolean,
    OUT dek_id bytea,
    OUT encryption_context jsonb,
    OUT wrapped_keys integer,
    OUT provider text,
    OUT key_id text,
    OUT wrapped_dek bytea,
    OUT nonce bytea,
    OUT ciphertext_bytes bigint,
    OUT value_bytes bigint
) RETURNS record
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_inspect';

-- This session's cache.

CREATE FUNCTION env_cache_flush() RETURNS integer
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_cache_flush';

CREATE FUNCTION env_cache_flush(everywhere boolean) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_cache_flush';

-- The current data keys, of all sessions.

CREATE FUNCTION env_rotate_dek(key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rotate_dek';

CREATE FUNCTION env_rotate_dek(key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rotate_dek';

-- Unwrap the data keys of many values at once: an aggregate over any query, and two short forms of it.

CREATE TYPE env_warm_result AS (cold bigint, warm bigint, failed bigint);

CREATE FUNCTION env_warm_transition(internal, value bytea) RETURNS internal
    LANGUAGE C STABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_warm_transition';

CREATE FUNCTION env_warm_final(internal) RETURNS env_warm_result
    LANGUAGE C STABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_warm_final';

CREATE AGGREGATE env_warm(value bytea) (
    SFUNC = env_warm_transition,
    STYPE = internal,
    FINALFUNC = env_warm_final,
    PARALLEL = RESTRICTED
);

CREATE FUNCTION env_warm("values" bytea[], OUT cold bigint, OUT warm bigint, OUT failed bigint) RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT (result).* INTO cold, warm, failed
    FROM (SELECT @extschema@.env_warm(value) AS result FROM unnest("values") AS value) AS aggregated;
END
$$;

CREATE FUNCTION env_warm(relation regclass, column_name name, OUT cold bigint, OUT warm bigint, OUT failed bigint)
    RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('SELECT (result).* FROM (SELECT @extschema@.env_warm(%I) AS result FROM %s) AS aggregated',
                   column_name, relation)
    INTO cold, warm, failed;
END
$$;

-- What happens. The functions give rows as JSON; the views are for people and for monitoring.

CREATE FUNCTION env_stat_kms_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_kms_json';

CREATE FUNCTION env_stat_cache_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_cache_json';

CREATE FUNCTION env_stat_broker_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_broker_json';

CREATE FUNCTION env_stat_reset() RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_reset';

CREATE FUNCTION env_kms_calls(OUT statement bigint, OUT transaction bigint, OUT session bigint) RETURNS record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_kms_calls';

CREATE FUNCTION env_broker_stop() RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_broker_stop';

CREATE VIEW env_stat_kms AS
SELECT
    source, operation, key_id, calls,
    errors, errors_unreachable, errors_timed_out, errors_throttled, errors_no_credentials, errors_access_denied,
    errors_key_unusable, errors_not_found, errors_other,
    cancelled, not_tried, retries, throttled_attempts, stale_serves,
    latency_ms, max_latency_ms, latency_bounds_ms, latency_buckets,
    pg_catalog.to_timestamp(stats_reset) AS stats_reset
FROM pg_catalog.jsonb_to_recordset(env_stat_kms_json()) AS row_(
    source text, operation text, key_id text, calls bigint,
    errors bigint, errors_unreachable bigint, errors_timed_out bigint, errors_throttled bigint,
    errors_no_credentials bigint, errors_access_denied bigint, errors_key_unusable bigint, errors_not_found bigint,
    errors_other bigint,
    cancelled bigint, not_tried bigint, retries bigint, throttled_attempts bigint, stale_serves bigint,
    latency_ms double precision, max_latency_ms double precision, latency_bounds_ms bigint[], latency_buckets bigint[],
    stats_reset double precision
);

CREATE VIEW env_stat_cache AS
SELECT purpose, named_key_id, key_id, dek_id, encryption_context, uses, age_seconds, ttl_seconds, state
FROM pg_catalog.jsonb_to_recordset(env_stat_cache_json()) AS row_(
    purpose text, named_key_id text, key_id text, dek_id bytea, encryption_context jsonb, uses bigint,
    age_seconds double precision, ttl_seconds double precision, state text
);

CREATE VIEW env_stat_broker AS
SELECT
    pid, pg_catalog.to_timestamp(started) AS started, requests, answered_from_memory, connections, data_keys,
    current_data_keys, unwrapped_ahead
FROM pg_catalog.jsonb_to_recordset(env_stat_broker_json()) AS row_(
    pid integer, started double precision, requests bigint, answered_from_memory bigint, connections bigint,
    data_keys bigint, current_data_keys bigint, unwrapped_ahead bigint
);

-- The local provider's key file.

CREATE FUNCTION env_local_create_key(name text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_local_create_key';

CREATE FUNCTION env_local_rotate_key(name text) RETURNS integer
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_local_rotate_key';

-- Who may: group roles for whatever touches keys, PUBLIC for what reads headers only.

REVOKE ALL ON FUNCTION
    env_encrypt(text, text),
    env_encrypt(text, text, jsonb),
    env_encrypt(text, text, jsonb, text),
    env_encrypt(bytea, text),
    env_encrypt(bytea, text, jsonb),
    env_encrypt(bytea, text, jsonb, text),
    env_encrypt(jsonb, text),
    env_encrypt(jsonb, text, jsonb),
    env_encrypt(jsonb, text, jsonb, text),
    env_encrypt_generated(text, text),
    env_encrypt_generated(text, text, jsonb),
    env_encrypt_generated(text, text, jsonb, text),
    env_encrypt_generated(bytea, text),
    env_encrypt_generated(bytea, text, jsonb),
    env_encrypt_generated(bytea, text, jsonb, text),
    env_encrypt_generated(jsonb, text),
    env_encrypt_generated(jsonb, text, jsonb),
    env_encrypt_generated(jsonb, text, jsonb, text)
    FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    env_encrypt(text, text),
    env_encrypt(text, text, jsonb),
    env_encrypt(text, text, jsonb, text),
    env_encrypt(bytea, text),
    env_encrypt(bytea, text, jsonb),
    env_encrypt(bytea, text, jsonb, text),
    env_encrypt(jsonb, text),
    env_encrypt(jsonb, text, jsonb),
    env_encrypt(jsonb, text, jsonb, text),
    env_encrypt_generated(text, text),
    env_encrypt_generated(text, text, jsonb),
    env_encrypt_generated(text, text, jsonb, text),
    env_encrypt_generated(bytea, text),
    env_encrypt_generated(bytea, text, jsonb),
    env_encrypt_generated(bytea, text, jsonb, text),
    env_encrypt_generated(jsonb, text),
    env_encrypt_generated(jsonb, text, jsonb),
    env_encrypt_generated(jsonb, text, jsonb, text)
    TO envelope_encrypt;

REVOKE ALL ON FUNCTION
    env_decrypt(bytea),
    env_decrypt(bytea, text),
    env_decrypt_bytea(bytea),
    env_decrypt_bytea(bytea, text),
    env_decrypt_jsonb(bytea),
    env_decrypt_jsonb(bytea, text)
    FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    env_decrypt(bytea),
    env_decrypt(bytea, text),
    env_decrypt_bytea(bytea),
    env_decrypt_bytea(bytea, text),
    env_decrypt_jsonb(bytea),
    env_decrypt_jsonb(bytea, text)
    TO envelope_decrypt;

REVOKE ALL ON FUNCTION env_cache_flush() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_cache_flush() TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin;

REVOKE ALL ON FUNCTION env_warm_transition(internal, bytea), env_warm_final(internal), env_warm(bytea), env_warm(bytea[]),
    env_warm(regclass, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_warm_transition(internal, bytea), env_warm_final(internal), env_warm(bytea),
    env_warm(bytea[]), env_warm(regclass, name) TO envelope_decrypt;

REVOKE ALL ON FUNCTION env_cache_flush(boolean), env_rotate_dek(text), env_rotate_dek(text, jsonb), env_stat_reset(),
    env_broker_stop() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_cache_flush(boolean), env_stat_reset(), env_broker_stop() TO envelope_admin;
GRANT EXECUTE ON FUNCTION env_rotate_dek(text), env_rotate_dek(text, jsonb) TO envelope_admin, envelope_rotate;

REVOKE ALL ON FUNCTION env_stat_kms_json(), env_stat_broker_json(), env_stat_cache_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_stat_kms_json(), env_stat_broker_json() TO envelope_admin, pg_monitor;
GRANT SELECT ON env_stat_kms, env_stat_broker TO envelope_admin, pg_monitor;
GRANT EXECUTE ON FUNCTION env_stat_cache_json()
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, pg_monitor;
GRANT SELECT ON env_stat_cache TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, pg_monitor;

-- Superusers only, unless one grants it on: they write a file of the server.
REVOKE ALL ON FUNCTION env_local_create_key(text), env_local_rotate_key(text) FROM PUBLIC;

COMMENT ON FUNCTION env_encrypt(text, text) IS
    'encrypt text under a data key of the given KMS key';
COMMENT ON FUNCTION env_encrypt(text, text, jsonb) IS
    'encrypt text under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION env_encrypt(text, text, jsonb, text) IS
    'encrypt text under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION env_encrypt(bytea, text) IS
    'encrypt bytea under a data key of the given KMS key';
COMMENT ON FUNCTION env_encrypt(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION env_encrypt(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION env_encrypt(jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key';
COMMENT ON FUNCTION env_encrypt(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION env_encrypt(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION env_encrypt_generated(text, text) IS
    'encrypt text under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(text, text, jsonb) IS
    'encrypt text under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(text, text, jsonb, text) IS
    'encrypt text under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(bytea, text) IS
    'encrypt bytea under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_encrypt_generated(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad for GENERATED ALWAYS AS (...) STORED';
COMMENT ON FUNCTION env_decrypt(bytea) IS
    'decrypt a value that was encrypted from text';
COMMENT ON FUNCTION env_decrypt(bytea, text) IS
    'decrypt a value that was encrypted from text with an aad';
COMMENT ON FUNCTION env_decrypt_bytea(bytea) IS
    'decrypt a value that was encrypted from bytea';
COMMENT ON FUNCTION env_decrypt_bytea(bytea, text) IS
    'decrypt a value that was encrypted from bytea with an aad';
COMMENT ON FUNCTION env_decrypt_jsonb(bytea) IS
    'decrypt a value that was encrypted from jsonb';
COMMENT ON FUNCTION env_decrypt_jsonb(bytea, text) IS
    'decrypt a value that was encrypted from jsonb with an aad';
COMMENT ON FUNCTION env_is_envelope(bytea) IS
    'whether a bytea has the form of an encrypted value (nothing is decrypted)';
COMMENT ON FUNCTION env_is_envelope(bytea, text) IS
    'whether a bytea has the form of a value encrypted under this key, or a replica of it (nothing is decrypted)';
COMMENT ON FUNCTION env_key_ids(bytea) IS
    'all KMS keys that wrap the data key of an encrypted value; each of them can open it';
COMMENT ON FUNCTION env_is_same_key(text, text) IS
    'whether two key ARNs, or local:name, are the same key or replicas of the same multi-Region key';
COMMENT ON FUNCTION env_key_id(bytea) IS
    'the KMS key that wraps the data key of an encrypted value: a key ARN, or local:name';
COMMENT ON FUNCTION env_dek_id(bytea) IS
    'the id (32-byte key commitment) of the data key of an encrypted value';
COMMENT ON FUNCTION env_encryption_context(bytea) IS
    'the KMS encryption context of an encrypted value';
COMMENT ON FUNCTION env_inspect(bytea) IS
    'the unencrypted parts of an encrypted value, and its sizes in bytes';
COMMENT ON FUNCTION env_cache_flush() IS
    'forget the data keys of this session; returns how many there were';
COMMENT ON FUNCTION env_cache_flush(boolean) IS
    'forget the data keys of this session, and with true those of all sessions and of the broker; returns how many this session had';
COMMENT ON FUNCTION env_rotate_dek(text) IS
    'make a new current data key for a KMS key now, for all sessions; those of its encryption contexts follow at their next use; returns its dek id';
COMMENT ON FUNCTION env_rotate_dek(text, jsonb) IS
    'make a new current data key for a KMS key and an encryption context now, for all sessions; returns its dek id';
COMMENT ON TYPE env_warm_result IS
    'data keys that env_warm met: cold (unwrapped by it), warm (known before), and how many of the cold ones failed';
COMMENT ON FUNCTION env_warm_transition(internal, bytea) IS
    'transition function of the aggregate env_warm';
COMMENT ON FUNCTION env_warm_final(internal) IS
    'final function of the aggregate env_warm';
COMMENT ON AGGREGATE env_warm(bytea) IS
    'unwrap the data keys of the values of a query, many at a time, so that decrypting them waits for no KMS call';
COMMENT ON FUNCTION env_warm(bytea[]) IS
    'unwrap the data keys of an array of values, many at a time';
COMMENT ON FUNCTION env_warm(regclass, name) IS
    'unwrap the data keys of a column, many at a time';
COMMENT ON FUNCTION env_stat_kms_json() IS
    'rows of the view env_stat_kms';
COMMENT ON FUNCTION env_stat_cache_json() IS
    'rows of the view env_stat_cache';
COMMENT ON FUNCTION env_stat_broker_json() IS
    'rows of the view env_stat_broker';
COMMENT ON FUNCTION env_stat_reset() IS
    'count the calls to KMS from zero again: those of the broker and those of this session';
COMMENT ON FUNCTION env_kms_calls() IS
    'KMS calls that the current statement, the current transaction and this session have waited for';
COMMENT ON FUNCTION env_broker_stop() IS
    'end the broker; the next session in need starts another one; returns whether there was one';
COMMENT ON VIEW env_stat_kms IS
    'calls to KMS by operation and key: those of the broker for all sessions, and those that this session made itself';
COMMENT ON VIEW env_stat_cache IS
    'the data keys of this session, without key material';
COMMENT ON VIEW env_stat_broker IS
    'the broker of the server, if one runs';
COMMENT ON FUNCTION env_local_create_key(text) IS
    'create a key of the local provider in the file envelope_pg.local_keyring; returns its key id';
COMMENT ON FUNCTION env_local_rotate_key(text) IS
    'add a version to a key of the local provider; older values still open; returns the version';

-- Inventory: where encrypted values are, and under which keys. Headers only: no KMS call, and no right to decrypt needed.
-- SECURITY INVOKER, so that nobody learns of tables he may not read; what could not be read is said.

CREATE FUNCTION env_inventory_columns(schema name DEFAULT NULL)
    RETURNS TABLE (relation regclass, column_name name, obstacle text)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF schema IS NOT NULL THEN
        PERFORM quote_ident(schema)::regnamespace;
    END IF;
    RETURN QUERY
        WITH RECURSIVE holder (type, is_bytea) AS (
            -- Types with bytea in them: domains, arrays, composites.
            SELECT 'bytea'::regtype::oid, true
            UNION
            SELECT t.oid, h.is_bytea AND t.typtype = 'd'
            FROM holder AS h
            JOIN pg_type AS t
                ON t.typbasetype = h.type
                OR t.typelem = h.type
                OR (t.typtype = 'c' AND EXISTS (
                    SELECT FROM pg_attribute AS part
                    WHERE part.attrelid = t.typrelid AND part.atttypid = h.type AND part.attnum > 0 AND NOT part.attisdropped))
        )
        SELECT c.oid::regclass, a.attname,
               CASE
                   WHEN c.relkind = 'f' THEN 'foreign table'
                   WHEN NOT h.is_bytea THEN 'type ' || format_type(a.atttypid, a.atttypmod)
                   WHEN pg_is_other_temp_schema(n.oid) THEN 'temporary table of another session'
                   WHEN c.relpersistence = 'u' AND pg_is_in_recovery() THEN 'unlogged table on a standby'
                   WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'no USAGE on the schema'
                   WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'no SELECT on the table'
                   WHEN row_security_active(c.oid) THEN 'row-level security hides rows'
               END
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN holder AS h ON h.type = a.atttypid
        WHERE (c.relkind IN ('r', 'f') OR (c.relkind = 'm' AND c.relispopulated))
          AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND (schema IS NULL OR n.nspname = schema)
        ORDER BY n.nspname, c.relname, a.attnum;
END
$$;

CREATE FUNCTION env_inventory(schema name DEFAULT NULL)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        content text,
        key_id text,
        rows bigint,
        deks bigint,
        first_block bigint,
        last_block bigint,
        detail text
    )
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    target record;
BEGIN
    FOR target IN
        SELECT c.relation, array_agg(c.column_name) AS columns, array_agg(c.obstacle) AS obstacles,
               string_agg(format('(%L::name, t.%I::bytea)', c.column_name, c.column_name), ', ')
                   FILTER (WHERE c.obstacle IS NULL) AS values_list
        FROM (SELECT * FROM @extschema@.env_inventory_columns(schema) WITH ORDINALITY) AS c
        GROUP BY c.relation
        ORDER BY min(c.ordinality)
    LOOP
        IF target.values_list IS NOT NULL THEN
            BEGIN
                -- One pass over the table for all of its columns, grouped so that parallel workers can share it.
                RETURN QUERY EXECUTE format($query$
                    WITH head AS (
                        SELECT v.column_name, h.content,
                               CASE h.content WHEN 'envelope' THEN @extschema@.env_key_ids(v.value) END AS key_ids,
                               CASE h.content WHEN 'envelope' THEN @extschema@.env_dek_id(v.value) END AS dek_id,
                               count(*) AS rows, min(t.ctid) AS first_row, max(t.ctid) AS last_row
                        FROM ONLY %1$s AS t
                        CROSS JOIN LATERAL (VALUES %2$s) AS v (column_name, value)
                        CROSS JOIN LATERAL (SELECT CASE
                            WHEN v.value IS NULL THEN 'null'
                            WHEN @extschema@.env_is_envelope(v.value) THEN 'envelope'
                            -- Damaged, or of a later release. Other data begins so once in a million values.
                            WHEN substr(v.value, 1, 3) BETWEEN '\xf64501' AND '\xf6450f' THEN 'unreadable'
                            ELSE 'no envelope'
                        END) AS h (content)
                        GROUP BY 1, 2, 3, 4
                    ), listed AS (
                        SELECT *, bool_or(head.content IN ('envelope', 'unreadable')) OVER (PARTITION BY head.column_name) AS is_listed
                        FROM head
                    )
                    SELECT %3$L::regclass, l.column_name, l.content, k.key_id, sum(l.rows)::bigint,
                           CASE l.content WHEN 'envelope' THEN count(DISTINCT l.dek_id) END,
                           (min(l.first_row)::text::point)[0]::bigint, (max(l.last_row)::text::point)[0]::bigint, NULL::text
                    FROM listed AS l
                    LEFT JOIN LATERAL (SELECT DISTINCT unnest(l.key_ids)) AS k (key_id) ON true
                    WHERE l.is_listed
                    GROUP BY l.column_name, l.content, k.key_id
                    ORDER BY array_position(%4$L::name[], l.column_name), l.content, k.key_id
                    $query$, target.relation, target.values_list, target.relation::oid, target.columns);
            EXCEPTION
                -- Such as a damaged page. A cancel is not caught.
                WHEN OTHERS THEN
                    target.obstacles := (SELECT array_agg(coalesce(o, SQLERRM)) FROM unnest(target.obstacles) AS o);
            END;
        END IF;
        RETURN QUERY
            SELECT target.relation, o.column_name, 'not examined', NULL::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, o.obstacle
            FROM unnest(target.columns, target.obstacles) AS o (column_name, obstacle)
            WHERE o.obstacle IS NOT NULL;
    END LOOP;
END
$$;

CREATE FUNCTION env_key_usage(key_id text)
    RETURNS TABLE (
        relation regclass,
        column_name name,
        state text,
        stored_key_id text,
        rows bigint,
        deks bigint,
        detail text
    )
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wanted_key_id CONSTANT text := key_id;
BEGIN
    -- An alias or a null is an error, also where there is no value to compare with.
    PERFORM @extschema@.env_is_same_key(wanted_key_id, wanted_key_id);
    RETURN QUERY
        WITH examined AS MATERIALIZED (
            SELECT * FROM @extschema@.env_inventory()
        ), finding AS MATERIALIZED (
            SELECT e.relation, e.column_name, e.key_id, e.rows, e.deks, e.detail,
                   CASE e.content WHEN 'envelope' THEN 'in use' ELSE e.content END AS state
            FROM examined AS e
            WHERE e.content IN ('not examined', 'unreadable')
               OR (e.content = 'envelope' AND @extschema@.env_is_same_key(e.key_id, wanted_key_id))
        ), total AS (
            SELECT count(*) AS columns, count(DISTINCT c.relation) AS relations
            FROM @extschema@.env_inventory_columns() AS c
        )
        SELECT NULL::regclass, NULL::name,
               CASE
                   WHEN bool_or(f.state = 'in use') THEN 'in use'
                   WHEN bool_or(f.state IS NOT NULL) THEN 'incomplete'
                   ELSE 'not in use'
               END,
               wanted_key_id, coalesce(sum(f.rows) FILTER (WHERE f.state = 'in use'), 0)::bigint, NULL::bigint,
               format('database %s: %s of %s bytea columns in %s relations examined', current_database(),
                      total.columns - count(*) FILTER (WHERE f.state = 'not examined'), total.columns, total.relations)
        FROM total LEFT JOIN finding AS f ON true
        GROUP BY total.columns, total.relations
        UNION ALL
        SELECT f.relation, f.column_name, f.state, f.key_id, f.rows, f.deks, f.detail FROM finding AS f;
END
$$;

REVOKE ALL ON FUNCTION env_inventory_columns(name), env_inventory(name), env_key_usage(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION env_inventory_columns(name), env_inventory(name), env_key_usage(text)
    TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION env_inventory_columns(name) IS
    'columns that can hold encrypted values, and what keeps env_inventory from examining them';
COMMENT ON FUNCTION env_inventory(name) IS
    'bytea columns that hold encrypted values: rows, data keys and blocks for each key, from the headers of all rows';
COMMENT ON FUNCTION env_key_usage(text) IS
    'whether any value of this database needs a key; the first row is the answer, the others are the proof';
