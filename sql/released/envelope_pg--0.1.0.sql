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

-- COST is measured, with short values: 1 is about 12 ns, a quarter of what the scan of a short row takes, as the planner's
-- cpu_operator_cost is of its cpu_tuple_cost. So cheap conditions are tested first, and a scan that decrypts goes parallel
-- where that pays. KMS calls are not in it: there is one for each data key, not for each value.

-- Encrypt. Overloads, not defaults, and not STRICT: a NULL key, context or aad is an error, never a silent NULL.

CREATE FUNCTION env_encrypt(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

-- The same under another label, because a generated column takes nothing but IMMUTABLE. What the label costs: where
-- all arguments are constants the planner evaluates the call once, and every row gets the same value.

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE FUNCTION env_encrypt_generated(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

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
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE FUNCTION env_decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE FUNCTION env_decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE FUNCTION env_decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE FUNCTION env_decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE FUNCTION env_decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

-- Read the header: no key, no KMS call.

CREATE FUNCTION env_is_envelope(value bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_is_envelope';

-- Not STRICT, as with env_encrypt: a NULL key is an error, and never a CHECK that lets everything through.
CREATE FUNCTION env_is_envelope(value bytea, key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 5 AS 'MODULE_PATHNAME', 'env_is_envelope_of_key';

CREATE FUNCTION env_key_id(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_key_id';

CREATE FUNCTION env_key_ids(value bytea) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_key_ids';

CREATE FUNCTION env_is_same_key(key_id text, other_key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_is_same_key';

CREATE FUNCTION env_dek_id(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 2 AS 'MODULE_PATHNAME', 'env_dek_id';

CREATE FUNCTION env_encryption_context(value bytea) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_encryption_context';

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
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 75 AS 'MODULE_PATHNAME', 'env_inspect';

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
    'have new current data keys made for a KMS key, for all sessions, each at the next use of its encryption context; returns NULL';
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
-- SECURITY INVOKER, so that nobody learns of tables he may not read; what could not be read is said. Compiling the statements
-- would take longer than most of them.

CREATE FUNCTION env_inventory_columns(schema name DEFAULT NULL)
    RETURNS TABLE (relation regclass, column_name name, obstacle text)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF schema IS NOT NULL THEN
        PERFORM quote_ident(schema)::regnamespace;
    END IF;
    RETURN QUERY
        WITH RECURSIVE contained (type, holder, is_domain) AS MATERIALIZED (
            SELECT typbasetype, oid, true FROM pg_type WHERE typbasetype <> 0
            UNION ALL
            SELECT typelem, oid, false FROM pg_type WHERE typelem <> 0
            UNION ALL
            SELECT part.atttypid, row.reltype, false
            FROM pg_attribute AS part JOIN pg_class AS row ON row.oid = part.attrelid
            WHERE part.attnum > 0 AND NOT part.attisdropped AND row.reltype <> 0
        ), holder (type, is_bytea) AS (
            -- Types with bytea in them: domains over it, arrays, composites.
            SELECT 'bytea'::regtype::oid, true
            UNION
            SELECT c.holder, h.is_bytea AND c.is_domain FROM holder AS h JOIN contained AS c ON c.type = h.type
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
          -- The extension's own tables hold ids of data keys and no values.
          AND c.oid <> ALL (ARRAY(
              SELECT d.objid
              FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
              WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
                AND e.extname = 'envelope_pg'))
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
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    target record;
BEGIN
    -- What is in a table must not be older than the lock on it: ALTER TABLE can write a table anew, which to a snapshot from
    -- before then is empty. VOLATILE and READ COMMITTED give each statement below a snapshot that is taken under its locks.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE 'an inventory cannot be taken in a % transaction', current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED first.';
    END IF;
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
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
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

-- Rotation. Values of one key, or of one data key, are brought under another.

CREATE FUNCTION env_rewrap(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_rewrap';

CREATE FUNCTION env_reencrypt(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE FUNCTION env_reencrypt(value bytea, to_key text, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE FUNCTION env_opens_to(value bytea, plaintext text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE FUNCTION env_opens_to(value bytea, plaintext text, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE FUNCTION env_opens_to(value bytea, plaintext bytea) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE FUNCTION env_opens_to(value bytea, plaintext bytea, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE FUNCTION env_opens_to(value bytea, plaintext jsonb) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE FUNCTION env_opens_to(value bytea, plaintext jsonb, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE FUNCTION env_dek_stub(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_dek_stub';

-- What env_rotate is made of. NULL as to_key of env_reencrypt_warm: the values will be opened only.

CREATE FUNCTION env_rewrap_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_warm';

CREATE FUNCTION env_reencrypt_warm(values_or_stubs bytea[], to_key text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_reencrypt_warm';

CREATE FUNCTION env_rewrap_target(to_key text) RETURNS text
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rewrap_target';

CREATE FUNCTION env_rotation_lock(lock_key bigint) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_rotation_lock';

CREATE FUNCTION env_rotation_unlock(lock_key bigint) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_rotation_unlock';


-- The runs, and how far each has come: changed in the transaction of each batch, so that a run resumes exactly. Not
-- dumped: block numbers mean nothing elsewhere. A procedure that commits runs with the rights of its caller, so whoever may
-- update a column can also write how far its runs have come (see the policies below), and make one skip rows; but nothing in
-- these tables is ever run as SQL, or decides which table or key is used: that comes from the arguments of each CALL.

CREATE TABLE env_rotation_run (
    run_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation       oid NOT NULL,
    column_number  smallint NOT NULL,
    relation_name  text NOT NULL,
    column_name    name NOT NULL,
    method         text NOT NULL CHECK (method IN ('rewrap', 'reencrypt', 'encrypt', 'decrypt')),
    parameters     jsonb NOT NULL,
    lock_key       bigint NOT NULL,
    status         text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done', 'abandoned')),
    pass           integer NOT NULL DEFAULT 0,
    leaf           oid NOT NULL DEFAULT 0,
    leaf_file      oid NOT NULL DEFAULT 0,
    leaf_blocks    bigint NOT NULL DEFAULT 0,
    next_block     bigint NOT NULL DEFAULT 0,
    blocks_done    bigint NOT NULL DEFAULT 0,
    blocks_total   bigint NOT NULL DEFAULT 0,
    pass_changed   bigint NOT NULL DEFAULT 0,
    pass_left      bigint NOT NULL DEFAULT 0,
    not_envelopes  bigint NOT NULL DEFAULT 0,
    target_only    bigint NOT NULL DEFAULT 0,
    failures       bigint NOT NULL DEFAULT 0,
    rows_done      bigint NOT NULL DEFAULT 0,
    rows_estimated bigint NOT NULL DEFAULT 0,
    kms_calls      bigint NOT NULL DEFAULT 0,
    seconds        double precision NOT NULL DEFAULT 0,
    pass_seconds   double precision NOT NULL DEFAULT 0,
    started_by     name NOT NULL DEFAULT CURRENT_USER,
    started        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished       timestamptz
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX env_rotation_run_open ON env_rotation_run (relation, column_number) WHERE status = 'open';

-- Data keys that a reencrypting run has met: those that it replaces, and those that it seals with.
CREATE TABLE env_rotation_dek (
    run_id bigint NOT NULL REFERENCES env_rotation_run ON DELETE CASCADE,
    dek_id bytea NOT NULL,
    key_id text NOT NULL,
    is_new boolean NOT NULL,
    PRIMARY KEY (run_id, dek_id)
);

-- Rows of the current or last pass that were left alone, at most 1000 a run. With tid NULL: all of a data key.
CREATE TABLE env_rotation_failure (
    failure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     bigint NOT NULL REFERENCES env_rotation_run ON DELETE CASCADE,
    relation   oid NOT NULL,
    tid        tid,
    dek_id     bytea,
    row_count  bigint NOT NULL,
    sqlstate   text NOT NULL,
    message    text NOT NULL
);

CREATE INDEX env_rotation_failure_run ON env_rotation_failure (run_id);

-- All runs can be seen. What is written is about a column that the writer may update, or one that is gone.
ALTER TABLE env_rotation_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE env_rotation_dek ENABLE ROW LEVEL SECURITY;
ALTER TABLE env_rotation_failure ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON env_rotation_run FOR SELECT USING (true);
CREATE POLICY seen ON env_rotation_dek FOR SELECT USING (true);
CREATE POLICY seen ON env_rotation_failure FOR SELECT USING (true);
CREATE POLICY written ON env_rotation_run
    USING (COALESCE(pg_catalog.has_column_privilege(relation, column_number, 'UPDATE'), true));
CREATE POLICY written ON env_rotation_dek
    USING (EXISTS (SELECT FROM env_rotation_run AS r WHERE r.run_id = env_rotation_dek.run_id
                   AND COALESCE(pg_catalog.has_column_privilege(r.relation, r.column_number, 'UPDATE'), true)));
CREATE POLICY written ON env_rotation_failure
    USING (EXISTS (SELECT FROM env_rotation_run AS r WHERE r.run_id = env_rotation_failure.run_id
                   AND COALESCE(pg_catalog.has_column_privilege(r.relation, r.column_number, 'UPDATE'), true)));

CREATE FUNCTION env_rotation_lock_key(relation oid, column_number smallint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN pg_catalog.hashtextextended(pg_catalog.format('envelope_pg rotation of %s.%s', relation, column_number), 0);

CREATE FUNCTION env_rotation_leaves(relation oid) RETURNS TABLE (leaf oid, kind "char")
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (member) AS (
        SELECT $1
        UNION
        SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = member
    )
    SELECT oid, relkind FROM tree JOIN pg_class ON oid = member WHERE relkind IN ('r', 'f') ORDER BY oid
$$;

-- What an error means for the run: 'row' is left alone, 'later' is tried in the next pass, 'stop' ends the CALL, which then
-- resumes. 'key' is a refusal, by KMS or by PostgreSQL: of a data key when KMS is asked for it, which leaves its rows alone; of
-- all else when rows are updated, such as a right or a replica identity that the table lacks, which ends the CALL.
CREATE FUNCTION env_rotation_triage(error_code text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN error_code IN ('40001', '40P01', '55P03') THEN 'later'
        WHEN left(error_code, 2) IN ('22', '23', '44')
            OR error_code IN ('0A000', '42804', 'P0001') THEN 'row'
        WHEN error_code IN ('42501', '42704', '55000') THEN 'key'
        ELSE 'stop'
    END
$$;

CREATE FUNCTION env_rotation_fail(
    run bigint, leaf oid, row_tid tid, stub bytea, row_count bigint, error_code text, message text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO @extschema@.env_rotation_failure (run_id, relation, tid, dek_id, row_count, sqlstate, message)
    SELECT $1, $2, $3, @extschema@.env_dek_id($4), $5, $6,
           -- Messages of this extension have no data in them; what triggers and casts say may.
           CASE WHEN $6 IN ('22000', '22P03', '0A000', '42804', '22004', '22023', '42501', '55000', '42704', '22P05',
                            '22001', '23514', '23502') THEN $7 ELSE '(left out, as it may quote data)' END
    WHERE (SELECT count(*) FROM @extschema@.env_rotation_failure AS f WHERE f.run_id = $1) < 1000;
    UPDATE @extschema@.env_rotation_run AS r SET failures = r.failures + $5 WHERE r.run_id = $1;
END
$$;

-- Checks everything that can be known at the start, takes the run's lock, and finds the run that this CALL resumes or
-- makes a new one.
CREATE FUNCTION env_rotation_begin(p jsonb) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    root oid := (p ->> 'relation')::oid;
    rotated name := p ->> 'column';
    wanted jsonb := p - ARRAY['batch_blocks', 'on_locked', 'max_rows_per_second', 'max_passes', 'max_failures'];
    method text := p ->> 'method';
    class pg_class;
    attribute pg_attribute;
    member record;
    is_distributed boolean := false;
    run @extschema@.env_rotation_run;
    lock_key bigint;
    foreign_leaves bigint;
    named name;
BEGIN
    SELECT * INTO class FROM pg_class WHERE oid = root;
    IF NOT FOUND THEN
        RAISE 'relation must be a table' USING ERRCODE = 'undefined_table';
    END IF;
    IF class.relkind NOT IN ('r', 'p') THEN
        RAISE '% is not a table', root::regclass USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the table itself, not a view or a foreign table.';
    END IF;
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = $1::regclass)'
            INTO is_distributed USING root;
        IF is_distributed THEN
            RAISE '% is a distributed table', root::regclass USING ERRCODE = 'feature_not_supported',
                HINT = 'Rotate its shards on the workers, or use UPDATE ... SET c = (SELECT env_rewrap(c, key)).';
        END IF;
    END IF;
    IF method IS NULL OR method NOT IN ('rewrap', 'reencrypt', 'encrypt', 'decrypt')
        OR (p ? 'source') <> (method IN ('encrypt', 'decrypt')) THEN
        RAISE 'unknown method "%"', method USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The methods are rewrap and reencrypt.';
    END IF;
    IF (p ->> 'on_locked') IS NULL OR (p ->> 'on_locked') NOT IN ('skip', 'wait') THEN
        RAISE 'unknown value "%" of on_locked', p ->> 'on_locked' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The values are skip and wait.';
    END IF;
    IF (p ->> 'batch_blocks')::bigint < 1 OR (p ->> 'max_rows_per_second')::numeric <= 0
        OR coalesce((p ->> 'max_passes')::bigint < 1, true) OR coalesce((p ->> 'max_failures')::bigint < 0, true) THEN
        RAISE 'limits of a run must be positive' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF method <> 'decrypt' THEN
        -- Says what is wrong with a key id, and asks nobody.
        PERFORM @extschema@.env_rewrap_target(p ->> 'to_key');
    END IF;
    IF (p ->> 'from_key') !~ '^(local:|arn:[^:]+:kms:[^:]+:[0-9]+:key/)' THEN
        RAISE 'invalid from_key "%"', p ->> 'from_key' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give it as env_key_id shows it: a key ARN or local:name, not an alias.';
    END IF;
    IF p ? 'aad_column' AND p ? 'aad_expression' THEN
        RAISE 'aad_column and aad_expression exclude each other' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH named IN ARRAY array_remove(ARRAY[rotated, p ->> 'source', p ->> 'target', p ->> 'aad_column']::name[], NULL)
    LOOP
        SELECT * INTO attribute FROM pg_attribute
        WHERE attrelid = root AND attname = named AND attnum > 0 AND NOT attisdropped;
        IF NOT FOUND THEN
            RAISE 'column "%" of relation % does not exist', named, root::regclass USING ERRCODE = 'undefined_column';
        END IF;
    END LOOP;
    IF rotated = p ->> 'source' THEN
        RAISE 'source and target are the same column "%"', rotated USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Add a column for the target.';
    END IF;
    SELECT * INTO STRICT attribute FROM pg_attribute WHERE attrelid = root AND attname = rotated AND NOT attisdropped;
    IF @extschema@.env_rotation_type(root, coalesce(p ->> 'source', rotated)::name) IS NULL
        OR @extschema@.env_rotation_type(root, coalesce(p ->> 'target', rotated)::name) IS NULL
        OR @extschema@.env_rotation_type(root,
            CASE method WHEN 'decrypt' THEN p ->> 'source' ELSE rotated END::name) <> 'bytea' THEN
        RAISE 'column of relation % has the wrong type', root::regclass USING ERRCODE = 'datatype_mismatch',
            HINT = 'Encrypted values are bytea; plaintext is text, varchar, bytea or jsonb.';
    END IF;
    IF attribute.attgenerated <> '' THEN
        RAISE 'column "%" of relation % is generated', rotated, root::regclass USING ERRCODE = 'generated_always',
            HINT = CASE attribute.attgenerated WHEN 'v' THEN 'Name the column that it is computed from.'
                ELSE 'UPDATE the table: that computes the column again, after env_rotate_dek(key_id) under a new data key.' END;
    END IF;
    IF (p ->> 'clear_source')::boolean AND EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = root AND attname = p ->> 'source' AND (attnotnull OR attgenerated <> '')) THEN
        RAISE 'column "%" of relation % cannot be cleared', p ->> 'source', root::regclass
            USING ERRCODE = 'not_null_violation', HINT = 'ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL first.';
    END IF;
    FOR member IN SELECT root AS leaf UNION SELECT leaf FROM @extschema@.env_rotation_leaves(root) WHERE kind = 'r' LOOP
        IF row_security_active(member.leaf) THEN
            RAISE 'row-level security hides rows of % from role %', member.leaf::regclass, current_user
                USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role with BYPASSRLS, or the owner of the table.';
        END IF;
        IF NOT has_table_privilege(member.leaf, 'SELECT')
            OR NOT has_column_privilege(member.leaf, rotated::text, 'UPDATE')
            OR ((p ->> 'clear_source')::boolean AND NOT has_column_privilege(member.leaf, p ->> 'source', 'UPDATE')) THEN
            RAISE 'role % needs SELECT and UPDATE on %', current_user, member.leaf::regclass
                USING ERRCODE = 'insufficient_privilege',
                HINT = 'Batches go to each partition itself, so a grant on the partitioned table is not enough.';
        END IF;
    END LOOP;
    SELECT l.leaf::regclass AS leaf, m.* INTO member
    FROM @extschema@.env_rotation_leaves(root) AS l, @extschema@.env_rotation_moves(l.leaf, rotated) AS m
    WHERE m.source = CASE method WHEN 'encrypt' THEN p ->> 'source' ELSE rotated::text END
      AND NOT (method = 'encrypt' AND (p ->> 'clear_source')::boolean AND m.target = rotated)
    LIMIT 1;
    IF FOUND AND method IN ('encrypt', 'decrypt') THEN
        RAISE 'trigger "%" of % moves the plaintext that is to stay', member.trigger, member.leaf
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('It sets "%s" to null, and encrypts it into "%s".', member.source, member.target),
            HINT = CASE WHEN method = 'encrypt' AND member.target = rotated
                THEN 'Have the application read the encrypted column, and give clear_source => true.'
                ELSE 'Drop or disable the trigger.' END;
    END IF;
    IF method = 'encrypt' THEN
        -- Before there is a run: whether the key may be used, and the context is one.
        PERFORM @extschema@.env_encrypt(''::text, p ->> 'to_key', (p ->> 'context')::jsonb);
    END IF;
    lock_key := @extschema@.env_rotation_lock_key(root, attribute.attnum);
    IF NOT @extschema@.env_rotation_lock(lock_key) THEN
        RAISE 'another run works on column "%" of relation %', rotated, root::regclass
            USING ERRCODE = 'object_in_use', HINT = 'See SELECT * FROM env_rotation.';
    END IF;
    SELECT * INTO run FROM @extschema@.env_rotation_run AS r
    WHERE r.relation = root AND r.column_number = attribute.attnum AND r.status = 'open' FOR UPDATE;
    IF FOUND AND (run.method <> method OR run.parameters <> wanted) THEN
        RAISE 'run % of this column is not finished, and is another one', run.run_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('Its parameters: %s.', run.parameters),
            HINT = format('Give the same parameters to resume it, or SELECT env_rotation_abandon(%s).', run.run_id);
    ELSIF FOUND THEN
        RAISE NOTICE 'run % resumes: pass %, % of % blocks, % rows done',
            run.run_id, run.pass, run.blocks_done, run.blocks_total, run.rows_done;
        RETURN run.run_id;
    END IF;
    SELECT count(*) INTO foreign_leaves FROM @extschema@.env_rotation_leaves(root) WHERE kind = 'f';
    IF foreign_leaves > 0 THEN
        RAISE WARNING '% foreign partitions of % are left alone', foreign_leaves, root::regclass
            USING HINT = 'Rotate them on their own servers.';
    END IF;
    INSERT INTO @extschema@.env_rotation_run
        (relation, column_number, relation_name, column_name, method, parameters, lock_key, rows_estimated)
    SELECT root, attribute.attnum, root::regclass::text, rotated, method, wanted, lock_key,
           coalesce(sum(CASE WHEN reltuples >= 0 THEN reltuples ELSE pg_stat_get_live_tuples(leaf) END), 0)
    FROM @extschema@.env_rotation_leaves(root) JOIN pg_class ON pg_class.oid = leaf WHERE kind = 'r'
    RETURNING * INTO run;
    IF method = 'reencrypt' THEN
        -- Data keys that were made before may be the reason for the run. For all sessions: they write to the column, too.
        PERFORM @extschema@.env_rotate_dek(p ->> 'to_key');
    END IF;
    RAISE NOTICE 'run % begins: % of column "%" of %', run.run_id, method, rotated, root::regclass;
    RETURN run.run_id;
END
$$;

-- What env_encrypt_trigger moves from column to column when a column of a table is updated.
CREATE FUNCTION env_rotation_moves(relation oid, updated name) RETURNS TABLE (trigger name, source text, target text)
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tgname, rule ->> 'source', rule ->> 'target'
    FROM pg_trigger AS t
    JOIN pg_attribute AS a ON a.attrelid = t.tgrelid AND a.attname = updated
    -- A zero byte is behind each argument: in hex with a space behind each byte.
    CROSS JOIN unnest(string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', '\& ', 'g'), '00 ')) AS argument
    CROSS JOIN LATERAL CAST(convert_from(decode(argument, 'hex'), getdatabaseencoding()) AS jsonb) AS rule
    WHERE t.tgrelid = relation AND t.tgfoid = '@extschema@.env_encrypt_trigger'::regproc AND t.tgenabled <> 'D'
      AND t.tgtype & 16 <> 0 AND (cardinality(t.tgattr::smallint[]) = 0 OR a.attnum = ANY (t.tgattr))
      AND argument <> '' AND rule ->> 'source' <> rule ->> 'target'
$$;

-- The type that a column's plaintext or values are of; NULL for others than text, bytea and jsonb.
CREATE FUNCTION env_rotation_type(relation oid, column_name name) RETURNS text
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (type) AS (
        SELECT atttypid FROM pg_attribute WHERE attrelid = relation AND attname = column_name AND NOT attisdropped
        UNION ALL
        SELECT typbasetype FROM pg_type JOIN base ON oid = type WHERE typtype = 'd'
    )
    SELECT CASE WHEN type IN ('text'::regtype, 'varchar'::regtype) THEN 'text'
                WHEN type = 'bytea'::regtype THEN 'bytea' WHEN type = 'jsonb'::regtype THEN 'jsonb' END
    FROM base JOIN pg_type ON oid = type WHERE typtype <> 'd'
$$;

-- The statements of a batch, for one table. They run under the caller's search_path, as triggers of the table must, so
-- every name and operator in them says its schema.
--   $1, $2  the first tid and the one behind the last      $3  stubs of the data keys to change; encrypt: to leave alone
CREATE FUNCTION env_rotation_statements(
    leaf oid, p jsonb,
    OUT scan_sql text, OUT count_sql text, OUT tids_sql text, OUT quick_sql text, OUT update_sql text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    method text := p ->> 'method';
    changed text := quote_ident(p ->> 'column');
    source text := quote_ident(p ->> 'source');
    clears boolean := coalesce((p ->> 'clear_source')::boolean, false);
    in_range text := 't.ctid OPERATOR(pg_catalog.>=) $1 AND t.ctid OPERATOR(pg_catalog.<) $2';
    aad text := CASE
        WHEN p ? 'aad_column' THEN format(', CAST(t.%I AS pg_catalog.text)', p ->> 'aad_column')
        WHEN p ? 'aad_expression' THEN ', CAST((' || (p ->> 'aad_expression') || ') AS pg_catalog.text)'
        ELSE '' END;
    type text;
    relation text;
    stub_of text := changed;
    stub text;
    due text;
    new_value text;
    result text := 'NULL, true';
    closing_sql text;
BEGIN
    SELECT format('%I.%I', nspname, relname) INTO relation
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = leaf;
    IF NOT FOUND THEN
        RAISE 'a table of the run is gone' USING ERRCODE = 'undefined_table';
    END IF;
    IF method IN ('rewrap', 'reencrypt') THEN
        due := '@extschema@.env_dek_stub(t.' || changed || ') OPERATOR(pg_catalog.=) ANY ($3)';
        new_value := '@extschema@.env_' || method || '(t.' || changed || ', ' || quote_literal(p ->> 'to_key')
            || CASE method WHEN 'reencrypt' THEN aad ELSE '' END || ')';
        IF method = 'reencrypt' THEN
            result := '@extschema@.env_dek_stub(t.' || changed || '), true';
        END IF;
    ELSIF method = 'encrypt' THEN
        type := 'pg_catalog.' || @extschema@.env_rotation_type(leaf, (p ->> 'source')::name);
        due := '@extschema@.env_opens_to(t.' || changed || ', CAST(t.' || source || ' AS ' || type || ')' || aad || ')';
        new_value := 'CASE WHEN ' || due || ' IS TRUE THEN t.' || changed
            || ' ELSE @extschema@.env_encrypt(CAST(t.' || source || ' AS ' || type || '), ' || quote_literal(p ->> 'to_key')
            || ', CAST(' || quote_literal(p ->> 'context') || ' AS pg_catalog.jsonb)' || aad || ') END';
        result := 'NULL, @extschema@.env_opens_to(t.' || changed || ', CAST(l.env_source AS ' || type || ')' || aad || ')';
    ELSE
        type := 'pg_catalog.' || @extschema@.env_rotation_type(leaf, (p ->> 'column')::name);
        stub_of := source;
        due := '@extschema@.env_opens_to(t.' || source || ', CAST(t.' || changed || ' AS ' || type || ')' || aad || ')';
        new_value := '@extschema@.env_decrypt' || CASE type WHEN 'pg_catalog.text' THEN '' WHEN 'pg_catalog.bytea'
            THEN '_bytea' ELSE '_jsonb' END || '(t.' || source || aad || ')';
        result := 'NULL, @extschema@.env_opens_to(l.env_source, CAST(t.' || changed || ' AS ' || type || ')' || aad || ')';
    END IF;
    stub := '@extschema@.env_dek_stub(t.' || stub_of || ')';
    IF source IS NOT NULL THEN
        -- First whether the data key is refused: then the value cannot be compared with the plaintext. Without a value there is
        -- nothing to refuse.
        due := 't.' || source || ' IS NOT NULL AND CASE WHEN (' || stub || ' OPERATOR(pg_catalog.=) ANY ($3)) IS '
            || CASE method WHEN 'encrypt' THEN 'NOT TRUE' ELSE 'TRUE' END || ' THEN '
            || CASE WHEN clears THEN 'true' ELSE '(' || due || ') IS NOT TRUE' END || ' ELSE false END';
    END IF;
    scan_sql := 'SELECT pg_catalog.array_agg(s.stub), pg_catalog.array_agg(s.n) FROM (
        SELECT v.stub, pg_catalog.count(*) AS n FROM (
            SELECT ' || stub || ' AS stub FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND t.' || stub_of || ' IS NOT NULL'
                || coalesce(' AND t.' || source || ' IS NOT NULL', '') || ') AS v GROUP BY v.stub) AS s';
    IF source IS NOT NULL THEN
        -- If the source is cleared, all targets are the only one.
        count_sql := 'SELECT pg_catalog.count(*) FILTER (WHERE ' || due || '), pg_catalog.count(*) FILTER (WHERE '
            || CASE WHEN clears THEN 'false' ELSE 't.' || source || ' IS NULL AND t.' || changed || ' IS NOT NULL' END
            || ') FROM ONLY ' || relation || ' AS t WHERE ' || in_range;
    END IF;
    tids_sql := 'SELECT pg_catalog.array_agg(t.ctid) FROM ONLY ' || relation || ' AS t WHERE ' || in_range || ' AND ' || due;
    -- Whatever was committed since the snapshot of this statement is locked in its newest version, which the outer scan
    -- does not see: it is left for the next pass. So what is changed is what was read, and nobody's update is lost.
    update_sql := 'WITH l AS MATERIALIZED (
            SELECT t.ctid AS env_tid, ' || coalesce('t.' || source, 'NULL') || ' AS env_source FROM ONLY ' || relation || ' AS t
            WHERE ' || in_range || ' AND ' || due || ' FOR NO KEY UPDATE OF t'
            || CASE p ->> 'on_locked' WHEN 'skip' THEN ' SKIP LOCKED' ELSE '' END || ')';
    closing_sql := '
            RETURNING ' || result || ')
        SELECT pg_catalog.count(*), pg_catalog.array_agg(DISTINCT CAST(w.dek AS pg_catalog.bytea)),
               pg_catalog.count(*) FILTER (WHERE w.verified IS NOT TRUE) FROM w';
    update_sql := update_sql || ',
        w (dek, verified) AS (
            UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
                || CASE WHEN clears THEN ', ' || source || ' = NULL' ELSE '' END || ' FROM l
            WHERE t.ctid OPERATOR(pg_catalog.=) l.env_tid AND ' || in_range || closing_sql;
    -- Without locks of its own it takes two thirds of the time, but waits for those of others.
    IF source IS NULL THEN
        quick_sql := 'WITH w (dek, verified) AS (UPDATE ONLY ' || relation || ' AS t SET ' || changed || ' = ' || new_value
            || ' WHERE ' || in_range || ' AND ' || due || closing_sql;
    END IF;
END
$$;

-- Whether a table is in the tree of another one, or is that one, and stays so for this transaction. One that is dropped or
-- detached in the middle of a run is none of its business any more.
CREATE FUNCTION env_rotation_hold(relation oid, leaf oid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_held boolean := false;
BEGIN
    -- From the leaf up: a tree can have thousands of them.
    WHILE EXISTS (
        WITH RECURSIVE ancestor (member) AS (
            SELECT oid FROM pg_class WHERE oid = $2 AND relkind IN ('r', 'p')
            UNION
            SELECT inhparent FROM pg_inherits JOIN ancestor ON inhrelid = member
        )
        SELECT FROM ancestor WHERE member = $1
    ) LOOP
        IF is_held THEN
            RETURN true;
        END IF;
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', $2::regclass);
            is_held := true;
        EXCEPTION
            -- Gone or renamed while it waited for the lock.
            WHEN undefined_table OR invalid_schema_name THEN NULL;
        END;
    END LOOP;
    RETURN false;
END
$$;

-- Ends the CALL, and not the run. NULL as error_code: the one of a failure.
CREATE FUNCTION env_rotation_give_up(run bigint, message text, error_code text, hint text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f @extschema@.env_rotation_failure;
BEGIN
    SELECT * INTO f FROM @extschema@.env_rotation_failure AS s WHERE s.run_id = $1 ORDER BY failure_id LIMIT 1;
    RAISE '%', message USING ERRCODE = coalesce(error_code, f.sqlstate), HINT = hint,
        DETAIL = format('One of the failures: %s %s.', f.sqlstate, f.message);
END
$$;

-- Where the next batch is: the rest of the table, the next table of the tree, the next pass, or nowhere. first_pass is the first
-- one that this CALL does from its beginning; NULL before its first batch.
CREATE FUNCTION env_rotation_next(
    run bigint, p jsonb, blocks bigint, first_pass integer,
    OUT finished boolean, OUT pass integer, OUT leaf oid, OUT from_block bigint, OUT to_block bigint,
    OUT from_tid tid, OUT to_tid tid, OUT begins_pass boolean, OUT nap double precision,
    OUT scan_sql text, OUT count_sql text, OUT tids_sql text, OUT quick_sql text, OUT update_sql text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @extschema@.env_rotation_run;
    next_leaf oid;
BEGIN
    SELECT * INTO r FROM @extschema@.env_rotation_run AS s
    WHERE s.run_id = run AND s.relation = (p ->> 'relation')::oid AND s.column_name = p ->> 'column' FOR UPDATE;
    IF NOT FOUND OR r.status <> 'open' THEN
        RAISE 'run % is not an open one of this column', run USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF NOT @extschema@.env_rotation_hold(r.relation, r.relation) THEN
        RAISE 'relation % is gone', r.relation_name USING ERRCODE = 'undefined_table';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = r.relation AND attnum = r.column_number
                   AND attname = r.column_name AND NOT attisdropped) THEN
        RAISE 'column "%" of relation % is gone or renamed', r.column_name, r.relation_name
            USING ERRCODE = 'undefined_column', HINT = 'Give a renamed column its name back to resume the run.';
    END IF;
    finished := false;
    begins_pass := false;
    nap := 0;
    IF r.failures > (p ->> 'max_failures')::bigint THEN
        IF first_pass IS NOT NULL THEN
            PERFORM @extschema@.env_rotation_give_up(run, format('run %s stops: %s rows failed in this pass', run, r.failures),
                'data_exception', 'Mend the cause, or raise max_failures; the same CALL resumes the run.');
        END IF;
        -- What it stopped for may have been mended: none of its rows is left out.
        r.leaf := 4294967295;
        r.leaf_blocks := 0;
    END IF;
    WHILE r.leaf = 0 OR r.next_block >= r.leaf_blocks OR r.pass = 0 OR NOT @extschema@.env_rotation_hold(r.relation, r.leaf) LOOP
        SELECT min(l.leaf) INTO next_leaf FROM @extschema@.env_rotation_leaves(r.relation) AS l
        WHERE l.kind = 'r' AND l.leaf > r.leaf AND r.pass > 0;
        IF next_leaf IS NOT NULL THEN
            r.leaf := next_leaf;
            r.leaf_file := pg_relation_filenode(next_leaf);
            r.next_block := 0;
            r.leaf_blocks := pg_relation_size(next_leaf, 'main') / current_setting('block_size')::bigint;
        ELSIF r.pass > 0 AND r.pass_changed = 0 AND r.pass_left = 0 AND (r.failures = 0 OR r.pass >= first_pass) THEN
            IF r.rows_done = 0 AND r.failures > 0 AND NOT EXISTS (
                SELECT FROM @extschema@.env_rotation_failure AS f
                WHERE f.run_id = run AND (f.tid IS NOT NULL OR @extschema@.env_rotation_triage(f.sqlstate) <> 'key')) THEN
                PERFORM @extschema@.env_rotation_give_up(run,
                    format('run %s stops: it changed nothing, and the data keys of %s rows are refused', run, r.failures), NULL,
                    'If they are refused for good, SELECT env_rotation_abandon(' || run || '); else the same CALL resumes the run.');
            END IF;
            finished := true;
            UPDATE @extschema@.env_rotation_run AS s
            SET status = 'done', finished = clock_timestamp(), updated = clock_timestamp() WHERE s.run_id = run;
            RETURN;
        ELSIF r.pass > 0 AND r.pass + 1 - first_pass >= (p ->> 'max_passes')::integer THEN
            finished := true;
            RETURN;
        ELSE
            begins_pass := true;
            -- Nothing but locked rows: give them a moment.
            nap := CASE WHEN r.pass > 0 AND r.pass_changed = 0 THEN 1 ELSE 0 END;
            r.pass := r.pass + 1;
            r.leaf := 0;
            r.pass_changed := 0;
            r.pass_left := 0;
            r.not_envelopes := 0;
            r.target_only := 0;
            r.failures := 0;
            r.blocks_done := 0;
            r.pass_seconds := 0;
            SELECT coalesce(sum(pg_relation_size(l.leaf, 'main') / current_setting('block_size')::bigint), 0)
            INTO r.blocks_total FROM @extschema@.env_rotation_leaves(r.relation) AS l WHERE l.kind = 'r';
            DELETE FROM @extschema@.env_rotation_failure AS f WHERE f.run_id = run;
            SELECT min(l.leaf) INTO next_leaf FROM @extschema@.env_rotation_leaves(r.relation) AS l WHERE l.kind = 'r';
            IF next_leaf IS NULL THEN
                finished := true;
                UPDATE @extschema@.env_rotation_run AS s
                SET status = 'done', pass = r.pass, finished = clock_timestamp(), updated = clock_timestamp()
                WHERE s.run_id = run;
                RETURN;
            END IF;
        END IF;
    END LOOP;
    IF r.leaf_file <> pg_relation_filenode(r.leaf) THEN
        -- Another table, or one whose rows VACUUM FULL, CLUSTER or pg_repack has moved: block numbers mean nothing any more.
        r.blocks_done := r.blocks_done - r.next_block;
        r.next_block := 0;
        r.leaf_blocks := pg_relation_size(r.leaf, 'main') / current_setting('block_size')::bigint;
        r.leaf_file := pg_relation_filenode(r.leaf);
    END IF;
    UPDATE @extschema@.env_rotation_run AS s
    SET pass = r.pass, leaf = r.leaf, leaf_file = r.leaf_file, leaf_blocks = r.leaf_blocks, next_block = r.next_block,
        pass_changed = r.pass_changed, pass_left = r.pass_left, not_envelopes = r.not_envelopes,
        target_only = r.target_only, failures = r.failures, blocks_done = r.blocks_done, blocks_total = r.blocks_total,
        pass_seconds = r.pass_seconds
    WHERE s.run_id = run;
    pass := r.pass;
    leaf := r.leaf;
    from_block := r.next_block;
    to_block := least(r.next_block + blocks, r.leaf_blocks);
    from_tid := format('(%s,0)', from_block)::tid;
    to_tid := format('(%s,0)', to_block)::tid;
    SELECT s.scan_sql, s.count_sql, s.tids_sql, s.quick_sql, s.update_sql
    INTO scan_sql, count_sql, tids_sql, quick_sql, update_sql
    FROM @extschema@.env_rotation_statements(leaf, p) AS s;
END
$$;

-- Which data keys of a batch are to be changed. Asks KMS for what that takes, many at a time, before any row is locked.
-- Those that KMS or the settings refuse are remembered for the CALL, and their rows are failures.
CREATE FUNCTION env_rotation_due(
    run bigint, p jsonb, pass integer, leaf oid, stubs bytea[], counts bigint[], INOUT refused bytea[],
    OUT due bytea[], OUT due_rows bigint, OUT not_envelopes bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    method text := p ->> 'method';
    to_key text := p ->> 'to_key';
    from_dek bytea := decode(p ->> 'from_dek', 'hex');
    stub bytea;
    ready bytea[] := '{}';
    attempt integer := 0;
BEGIN
    IF method = 'encrypt' THEN
        -- Makes the data key, if that is due.
        PERFORM @extschema@.env_encrypt(''::text, to_key, (p ->> 'context')::jsonb);
    END IF;
    -- Adopted rows get a value instead.
    SELECT coalesce(sum(n), 0) INTO not_envelopes FROM unnest(stubs, counts) AS u (s, n) WHERE s IS NULL AND method <> 'encrypt';
    IF method IN ('encrypt', 'decrypt') THEN
        due := array_remove(stubs, NULL);
    ELSE
        SELECT array_agg(s) INTO due FROM unnest(stubs) AS u (s)
        WHERE s IS NOT NULL
          AND (p ->> 'from_key' IS NULL OR @extschema@.env_key_id(s) = p ->> 'from_key')
          AND (from_dek IS NULL OR @extschema@.env_dek_id(s) = from_dek);
    END IF;
    IF method = 'reencrypt' THEN
        -- The first pass changes whatever is not under a data key of this run. Others may seal with data keys of their
        -- own meanwhile, so later passes look for those that the first one has met, and for those of another key.
        SELECT array_agg(s) INTO due FROM unnest(due) AS u (s)
        LEFT JOIN @extschema@.env_rotation_dek AS d ON d.run_id = run AND d.dek_id = @extschema@.env_dek_id(s)
        WHERE d.is_new IS NOT TRUE
          AND (pass = 1 OR d.is_new IS FALSE OR NOT EXISTS (
              SELECT FROM @extschema@.env_rotation_dek AS n
              WHERE n.run_id = run AND n.is_new AND @extschema@.env_is_same_key(n.key_id, @extschema@.env_key_id(s))));
        INSERT INTO @extschema@.env_rotation_dek (run_id, dek_id, key_id, is_new)
        SELECT run, @extschema@.env_dek_id(s), min(@extschema@.env_key_id(s)), false FROM unnest(due) AS u (s)
        GROUP BY 2 ON CONFLICT DO NOTHING;
    END IF;
    due := coalesce(due, '{}');
    -- Asking can tell what an alias stands for, and so which values are under it already.
    WHILE attempt < 2 AND due <> '{}' LOOP
        attempt := attempt + 1;
        IF method = 'rewrap' THEN
            SELECT coalesce(array_agg(s), '{}') INTO due FROM unnest(due) AS u (s)
            WHERE @extschema@.env_key_id(s) IS DISTINCT FROM @extschema@.env_rewrap_target(to_key)
               OR (@extschema@.env_inspect(s)).wrapped_keys <> 1;
        END IF;
        SELECT coalesce(array_agg(s), '{}') INTO ready FROM unnest(due) AS u (s) WHERE s <> ALL (refused);
        EXIT WHEN ready = '{}' OR attempt = 2;
        BEGIN
            PERFORM @extschema@.env_rotation_warm(method, ready, to_key);
        EXCEPTION WHEN OTHERS THEN
            IF @extschema@.env_rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                RAISE;
            END IF;
            FOREACH stub IN ARRAY ready LOOP
                BEGIN
                    PERFORM @extschema@.env_rotation_warm(method, ARRAY[stub], to_key);
                EXCEPTION WHEN OTHERS THEN
                    IF @extschema@.env_rotation_triage(SQLSTATE) NOT IN ('row', 'key') THEN
                        RAISE;
                    END IF;
                    refused := refused || stub;
                    PERFORM @extschema@.env_rotation_fail(run, leaf, NULL, stub, counts[array_position(stubs, stub)],
                        SQLSTATE, SQLERRM);
                    -- Counted here; below what was refused in an earlier batch is.
                    counts[array_position(stubs, stub)] := 0;
                END;
            END LOOP;
        END;
    END LOOP;
    SELECT coalesce(array_agg(s), '{}') INTO ready FROM unnest(due) AS u (s) WHERE s <> ALL (refused);
    IF method = 'reencrypt' THEN
        -- Has what is to seal them made. If that is refused it is no fault of theirs.
        PERFORM @extschema@.env_reencrypt_warm(ready, to_key);
    END IF;
    UPDATE @extschema@.env_rotation_run AS r
    SET failures = failures + (SELECT coalesce(sum(n), 0) FROM unnest(stubs, counts) AS u (s, n)
                               WHERE s = ANY (due) AND s = ANY (refused))
    WHERE r.run_id = run AND refused <> '{}';
    due := CASE method WHEN 'encrypt' THEN ARRAY(SELECT s FROM unnest(due) AS u (s) WHERE s = ANY (refused)) ELSE ready END;
    SELECT coalesce(sum(n), 0) INTO due_rows FROM unnest(stubs, counts) AS u (s, n) WHERE s = ANY (due);
    -- The array is searched for each batch; beyond this KMS is asked again instead.
    refused := refused[1:1000];
END
$$;

CREATE FUNCTION env_rotation_warm(method text, stubs bytea[], to_key text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF method = 'rewrap' THEN
        PERFORM @extschema@.env_rewrap_warm(stubs, to_key);
    ELSE
        PERFORM @extschema@.env_reencrypt_warm(stubs, NULL);
    END IF;
END
$$;

-- Writes down what a batch has done, in its transaction, and says how to go on.
CREATE FUNCTION env_rotation_record(
    run bigint, p jsonb, began timestamptz, from_block bigint, to_block bigint,
    changed bigint, left_rows bigint, not_envelopes bigint, target_only bigint, stubs bytea[],
    INOUT kms_seen bigint, INOUT noticed timestamptz, OUT blocks bigint, OUT naps integer, OUT nap double precision
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @extschema@.env_rotation_run;
    elapsed double precision;
    pause double precision;
    calls bigint := (@extschema@.env_kms_calls()).statement;
BEGIN
    INSERT INTO @extschema@.env_rotation_dek (run_id, dek_id, key_id, is_new)
    SELECT run, @extschema@.env_dek_id(stub), min(@extschema@.env_key_id(stub)), true
    FROM unnest(stubs) AS u (stub) WHERE stub IS NOT NULL GROUP BY 2
    ON CONFLICT (run_id, dek_id) DO UPDATE SET is_new = true WHERE NOT env_rotation_dek.is_new;
    elapsed := extract(epoch FROM clock_timestamp() - began);
    pause := greatest(coalesce(changed / (p ->> 'max_rows_per_second')::double precision, 0) - elapsed, 0);
    UPDATE @extschema@.env_rotation_run AS s
    SET next_block = to_block, blocks_done = s.blocks_done + to_block - from_block,
        pass_changed = s.pass_changed + changed, pass_left = s.pass_left + left_rows,
        rows_done = s.rows_done + changed, not_envelopes = s.not_envelopes + env_rotation_record.not_envelopes,
        target_only = s.target_only + env_rotation_record.target_only,
        kms_calls = s.kms_calls + calls - kms_seen,
        seconds = s.seconds + elapsed + pause, pass_seconds = s.pass_seconds + elapsed + pause, updated = clock_timestamp()
    WHERE s.run_id = run RETURNING * INTO r;
    kms_seen := calls;
    -- Batches of about a tenth of a second: short locks, and little that is done twice after a crash.
    blocks := coalesce((p ->> 'batch_blocks')::bigint,
        greatest(1, least(4096, ceil((to_block - from_block) * least(2, greatest(0.1, 0.1 / greatest(elapsed, 0.001)))))));
    IF (p ->> 'max_rows_per_second') IS NOT NULL AND changed > 0 THEN
        -- And none of more rows than a second allows.
        blocks := greatest(1, least(blocks, floor((to_block - from_block) * (p ->> 'max_rows_per_second')::numeric / changed)::bigint));
    END IF;
    -- In parts, so that no snapshot is held for long.
    naps := ceil(pause);
    nap := CASE WHEN naps > 0 THEN pause / naps ELSE 0 END;
    IF clock_timestamp() - noticed >= interval '5 seconds' THEN
        noticed := clock_timestamp();
        RAISE NOTICE 'run %: pass %, % of % blocks, % rows done, % rows/s, % KMS calls, % failures',
            run, r.pass, r.blocks_done, r.blocks_total, r.rows_done,
            round((r.rows_done / greatest(r.seconds, 0.001))::numeric), r.kms_calls, r.failures;
    END IF;
END
$$;

CREATE FUNCTION env_rotation_end(run bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @extschema@.env_rotation_run;
BEGIN
    SELECT * INTO STRICT r FROM @extschema@.env_rotation_run AS s WHERE s.run_id = run;
    PERFORM @extschema@.env_rotation_unlock(r.lock_key);
    IF r.failures > 0 THEN
        RAISE WARNING 'run %: rows that failed and are as they were: %', run, r.failures
            USING HINT = format('SELECT * FROM env_rotation_failure WHERE run_id = %s.', run);
    END IF;
    IF r.not_envelopes > 0 THEN
        RAISE WARNING 'run %: values that are no encrypted values and are as they were: %', run, r.not_envelopes;
    END IF;
    IF r.target_only > 0 THEN
        RAISE WARNING 'run %: rows with nothing in column "%" and something in column "%": %', run, r.parameters ->> 'source',
                r.column_name, r.target_only
            USING HINT = 'If somebody sets the one to null to delete it, the other has to be set to null, too.';
    END IF;
    IF r.status = 'open' THEN
        RAISE WARNING 'run % is not finished: after % passes % rows are left', run, r.pass, r.pass_left
            USING DETAIL = 'The last pass changed rows or met locked ones, so another one has to look whether any are left.',
                  HINT = 'Have writers use the new key; then the same CALL resumes the run.';
        RETURN;
    END IF;
    RAISE NOTICE 'run % is done: % rows in % s (% rows/s), % passes, % KMS calls', run, r.rows_done,
        round(r.seconds::numeric, 1), round((r.rows_done / greatest(r.seconds, 0.001))::numeric), r.pass, r.kms_calls;
    IF r.method = 'encrypt' THEN
        RAISE NOTICE 'plaintext is left in column "%" (unless it was cleared), in dead rows, indexes, old WAL, backups, replicas',
                r.parameters ->> 'source'
            USING HINT = 'Have the application read the encrypted column; drop the plaintext column; VACUUM FULL or '
                'pg_repack the table; let WAL archives and backups expire.';
    END IF;
END
$$;

-- The batches of a run. A procedure that commits cannot fix its search_path, so nothing is decided here: all that is in
-- functions that do. A batch that fails for the sake of a row is done row by row.
CREATE PROCEDURE env_rotation_loop(run bigint, p pg_catalog.jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    step pg_catalog.record;
    due pg_catalog.record;
    outcome pg_catalog.record;
    began pg_catalog.timestamptz;
    first_pass integer;
    blocks bigint := 1;
    stubs pg_catalog.bytea[];
    counts bigint[];
    refused pg_catalog.bytea[] := '{}';
    due_rows bigint;
    target_only bigint := 0;
    changed bigint;
    row_changed bigint;
    not_verified bigint;
    deks pg_catalog.bytea[];
    row_deks pg_catalog.bytea[];
    by_row boolean;
    is_done boolean;
    careful integer := 0;
    tids pg_catalog.tid[];
    row_tid pg_catalog.tid;
    triage pg_catalog.text;
    kms_seen bigint := 0;
    noticed pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    LOOP
        -- The statements below are right under READ COMMITTED only. That must be said before anything takes a snapshot, as the
        -- evaluation of an expression can.
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        began := pg_catalog.clock_timestamp();
        SELECT s.* INTO step FROM @extschema@.env_rotation_next(run, p, blocks, first_pass) AS s;
        EXIT WHEN step.finished;
        first_pass := COALESCE(first_pass,
            CASE WHEN step.begins_pass THEN step.pass ELSE step.pass OPERATOR(pg_catalog.+) 1 END);
        IF step.begins_pass THEN
            refused := '{}';
            PERFORM pg_catalog.pg_sleep(step.nap);
        END IF;
        EXECUTE step.scan_sql INTO stubs, counts USING step.from_tid, step.to_tid;
        SELECT d.* INTO due
        FROM @extschema@.env_rotation_due(run, p, step.pass, step.leaf, stubs, counts, refused) AS d;
        refused := due.refused;
        due_rows := due.due_rows;
        IF step.count_sql IS NOT NULL THEN
            EXECUTE step.count_sql INTO due_rows, target_only USING step.from_tid, step.to_tid, due.due;
        END IF;
        changed := 0;
        deks := NULL;
        by_row := false;
        is_done := due_rows OPERATOR(pg_catalog.=) 0::bigint;
        -- First as a plain UPDATE. If that would wait for a row, or fails, it is undone and the careful one takes over, as it
        -- does for the batches behind: where one row is locked, others are likely to be.
        IF NOT is_done AND step.quick_sql IS NOT NULL AND careful OPERATOR(pg_catalog.=) 0 THEN
            BEGIN
                PERFORM pg_catalog.set_config('lock_timeout', '10ms', true);
                EXECUTE step.quick_sql INTO changed, deks, not_verified USING step.from_tid, step.to_tid, due.due;
                is_done := true;
            EXCEPTION WHEN OTHERS THEN
                changed := 0;
                deks := NULL;
                careful := 8;
            END;
        ELSIF NOT is_done THEN
            careful := GREATEST(careful OPERATOR(pg_catalog.-) 1, 0);
        END IF;
        IF NOT is_done THEN
            BEGIN
                EXECUTE step.update_sql INTO changed, deks, not_verified USING step.from_tid, step.to_tid, due.due;
                PERFORM @extschema@.env_rotation_verify(not_verified);
            EXCEPTION WHEN OTHERS THEN
                triage := @extschema@.env_rotation_triage(SQLSTATE);
                IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                    RAISE;
                END IF;
                by_row := triage OPERATOR(pg_catalog.=) 'row'::pg_catalog.text;
                changed := 0;
                deks := NULL;
            END;
        END IF;
        IF by_row THEN
            EXECUTE step.tids_sql INTO tids USING step.from_tid, step.to_tid, due.due;
            FOREACH row_tid IN ARRAY COALESCE(tids, '{}') LOOP
                BEGIN
                    EXECUTE step.update_sql INTO row_changed, row_deks, not_verified
                        USING row_tid, @extschema@.env_rotation_next_tid(row_tid), due.due;
                    PERFORM @extschema@.env_rotation_verify(not_verified);
                    changed := changed OPERATOR(pg_catalog.+) row_changed;
                    deks := pg_catalog.array_cat(deks, row_deks);
                EXCEPTION WHEN OTHERS THEN
                    triage := @extschema@.env_rotation_triage(SQLSTATE);
                    IF triage OPERATOR(pg_catalog.=) ANY (ARRAY['stop', 'key']::pg_catalog.text[]) THEN
                        RAISE;
                    ELSIF triage OPERATOR(pg_catalog.=) 'row'::pg_catalog.text THEN
                        PERFORM @extschema@.env_rotation_fail(run, step.leaf, row_tid, NULL, 1, SQLSTATE, SQLERRM);
                        -- Neither done nor left.
                        due_rows := due_rows OPERATOR(pg_catalog.-) 1::bigint;
                    END IF;
                END;
            END LOOP;
        END IF;
        SELECT o.* INTO outcome
        FROM @extschema@.env_rotation_record(run, p, began, step.from_block, step.to_block, changed,
            GREATEST(due_rows OPERATOR(pg_catalog.-) changed, 0::bigint), due.not_envelopes, target_only, deks, kms_seen, noticed) AS o;
        kms_seen := outcome.kms_seen;
        noticed := outcome.noticed;
        blocks := outcome.blocks;
        -- No lock and no snapshot is held meanwhile.
        COMMIT;
        FOR nap IN 1..outcome.naps LOOP
            PERFORM pg_catalog.pg_sleep(outcome.nap);
            COMMIT;
        END LOOP;
    END LOOP;
    PERFORM @extschema@.env_rotation_end(run);
    COMMIT;
END
$$;

CREATE FUNCTION env_rotation_next_tid(row_tid tid) RETURNS tid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(%s,%s)', split_part(trim('()' FROM row_tid::text), ',', 1),
                  split_part(trim('()' FROM row_tid::text), ',', 2)::integer + 1)::tid
$$;

CREATE FUNCTION env_rotation_verify(not_verified bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF not_verified > 0 THEN
        RAISE '% values did not open to their plaintext', not_verified USING ERRCODE = 'data_corrupted',
            DETAIL = 'The batch was rolled back.', HINT = 'Does a trigger change the column?';
    END IF;
END
$$;

CREATE PROCEDURE env_rotate(
    relation pg_catalog.regclass,
    column_name pg_catalog.name,
    to_key pg_catalog.text,
    method pg_catalog.text DEFAULT 'rewrap',
    aad_column pg_catalog.name DEFAULT NULL,
    from_key pg_catalog.text DEFAULT NULL,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000,
    from_dek pg_catalog.bytea DEFAULT NULL,
    aad_expression pg_catalog.text DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', column_name, 'method', method, 'to_key', to_key,
        'aad_column', aad_column, 'from_key', from_key, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures,
        'from_dek', pg_catalog.encode(from_dek, 'hex'), 'aad_expression', aad_expression));
BEGIN
    run := @extschema@.env_rotation_begin(p);
    CALL @extschema@.env_rotation_loop(run, p);
END
$$;

CREATE PROCEDURE env_encrypt_column(
    relation pg_catalog.regclass,
    source_column pg_catalog.name,
    target_column pg_catalog.name,
    key_id pg_catalog.text,
    encryption_context pg_catalog.jsonb DEFAULT '{}',
    aad_column pg_catalog.name DEFAULT NULL,
    aad_expression pg_catalog.text DEFAULT NULL,
    clear_source boolean DEFAULT false,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', target_column, 'source', source_column, 'method', 'encrypt',
        -- As text, in which no nulls are stripped: they are for env_encrypt to refuse.
        'to_key', key_id, 'context', encryption_context::pg_catalog.text, 'aad_column', aad_column, 'aad_expression', aad_expression,
        'clear_source', clear_source, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures));
BEGIN
    run := @extschema@.env_rotation_begin(p);
    CALL @extschema@.env_rotation_loop(run, p);
END
$$;

CREATE PROCEDURE env_decrypt_column(
    relation pg_catalog.regclass,
    source_column pg_catalog.name,
    target_column pg_catalog.name,
    aad_column pg_catalog.name DEFAULT NULL,
    aad_expression pg_catalog.text DEFAULT NULL,
    clear_source boolean DEFAULT false,
    batch_blocks integer DEFAULT NULL,
    on_locked pg_catalog.text DEFAULT 'skip',
    max_rows_per_second numeric DEFAULT NULL,
    max_passes integer DEFAULT 10,
    max_failures bigint DEFAULT 10000
) LANGUAGE plpgsql AS $$
DECLARE
    run bigint;
    p pg_catalog.jsonb := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
        'relation', relation::pg_catalog.oid, 'column', target_column, 'source', source_column, 'method', 'decrypt',
        'aad_column', aad_column, 'aad_expression', aad_expression,
        'clear_source', clear_source, 'batch_blocks', batch_blocks, 'on_locked', on_locked,
        'max_rows_per_second', max_rows_per_second, 'max_passes', max_passes, 'max_failures', max_failures));
BEGIN
    run := @extschema@.env_rotation_begin(p);
    CALL @extschema@.env_rotation_loop(run, p);
END
$$;

-- A run is alive if somebody holds its lock: no flag that a crash could leave behind.
CREATE VIEW env_rotation AS
    SELECT r.run_id,
           COALESCE(c.oid::pg_catalog.regclass::text, r.relation_name) AS relation,
           r.column_name,
           r.method,
           r.parameters ->> 'from_key' AS from_key,
           r.parameters ->> 'to_key' AS to_key,
           CASE WHEN r.status <> 'open' THEN r.status
                WHEN l.pid IS NOT NULL THEN 'running'
                WHEN a.attname IS DISTINCT FROM r.column_name THEN 'failed'
                ELSE 'interrupted' END AS state,
           l.pid,
           r.pass,
           r.blocks_done,
           r.blocks_total,
           r.rows_done,
           r.rows_estimated,
           pg_catalog.round((r.rows_done / NULLIF(r.seconds, 0))::numeric) AS rows_per_second,
           r.pass_left AS rows_left,
           r.failures,
           r.not_envelopes,
           r.target_only,
           r.kms_calls,
           r.started_by,
           r.started,
           r.updated,
           r.finished,
           -- Of this pass. The last one only reads.
           CASE WHEN r.status = 'open' AND l.pid IS NOT NULL AND r.blocks_done > 0
                THEN r.updated + pg_catalog.make_interval(
                    secs => r.pass_seconds * GREATEST(r.blocks_total - r.blocks_done, 0) / r.blocks_done) END AS eta
    FROM env_rotation_run AS r
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = r.relation
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.relation AND a.attnum = r.column_number AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_locks AS l ON r.status = 'open' AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
        AND l.classid = ((r.lock_key >> 32) & 4294967295)::oid AND l.objid = (r.lock_key & 4294967295)::oid;

CREATE FUNCTION env_rotation_abandon(run_id bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r @extschema@.env_rotation_run;
BEGIN
    SELECT * INTO r FROM @extschema@.env_rotation_run AS s WHERE s.run_id = $1;
    IF NOT FOUND THEN
        RAISE 'run % does not exist', run_id USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT pg_try_advisory_xact_lock(r.lock_key) THEN
        RAISE 'run % is running', run_id USING ERRCODE = 'object_in_use', HINT = 'Cancel its CALL first.';
    END IF;
    IF r.status <> 'open' THEN
        RAISE 'run % is over', run_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    UPDATE @extschema@.env_rotation_run AS s
    SET status = 'abandoned', updated = clock_timestamp(), finished = clock_timestamp()
    WHERE s.run_id = $1;
    IF NOT FOUND THEN
        RAISE 'role % needs UPDATE on column "%" of %', current_user, r.column_name, r.relation_name
            USING ERRCODE = 'insufficient_privilege', HINT = 'Who may not rotate the column may not give up its runs.';
    END IF;
END
$$;

-- What a run would do, from the heads of a sample of the values, or of all. Asks KMS nothing, so what an alias stands for
-- is not known unless this session has used it: then all values count.
CREATE FUNCTION env_rotation_plan(
    relation regclass, column_name name, to_key text, method text DEFAULT 'rewrap', from_key text DEFAULT NULL,
    sample_percent double precision DEFAULT NULL, rows_per_second numeric DEFAULT 20000,
    usd_per_10000_requests numeric DEFAULT 0.03,
    OUT sampled_percent double precision, OUT all_rows bigint, OUT null_rows bigint, OUT not_envelopes bigint,
    OUT rows_to_change bigint, OUT data_keys_seen bigint, OUT data_keys bigint, OUT keys text[], OUT kms_calls bigint,
    OUT price_usd numeric, OUT bytes_rewritten bigint, OUT wal_bytes bigint, OUT duration interval
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    block_bytes bigint := current_setting('block_size')::bigint;
    blocks bigint;
    -- Above this many blocks (1 GB) about half as many are read.
    all_blocks bigint := 131072;
    leaf oid;
    scan text;
    found record;
    scale double precision;
    fraction double precision;
BEGIN
    IF method IS NULL OR method NOT IN ('rewrap', 'reencrypt') THEN
        RAISE 'unknown method "%"', method USING ERRCODE = 'invalid_parameter_value',
            HINT = 'The methods are rewrap and reencrypt.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p')) THEN
        RAISE '% is not a table', relation USING ERRCODE = 'wrong_object_type',
            HINT = 'Name the table itself, not a view or a foreign table.';
    END IF;
    IF coalesce(rows_per_second <= 0, true) OR coalesce(usd_per_10000_requests < 0, true)
        OR sample_percent <= 0 OR sample_percent > 100 THEN
        RAISE 'rates and shares of a plan must be positive, and sample_percent 100 at most'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR leaf IN SELECT l.leaf FROM @extschema@.env_rotation_leaves(relation) AS l WHERE l.kind = 'r' LOOP
        IF row_security_active(leaf) THEN
            RAISE 'row-level security hides rows of % from role %', leaf::regclass, current_user
                USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role with BYPASSRLS, or the owner of the table.';
        END IF;
    END LOOP;
    IF @extschema@.env_rotation_type(relation, column_name) IS DISTINCT FROM 'bytea' THEN
        RAISE 'relation % has no bytea column "%"', relation, column_name USING ERRCODE = 'undefined_column';
    END IF;
    SELECT coalesce(sum(pg_relation_size(l.leaf, 'main')), 0) / block_bytes INTO blocks
    FROM @extschema@.env_rotation_leaves(relation) AS l WHERE l.kind = 'r';
    sampled_percent := coalesce(sample_percent, CASE WHEN blocks > all_blocks THEN 50.0 * all_blocks / blocks ELSE 100 END);
    SELECT string_agg(format('SELECT v.%I AS value FROM ONLY %s AS v %s', column_name, l.leaf::regclass,
        CASE WHEN sampled_percent < 100 THEN format('TABLESAMPLE SYSTEM (%s) REPEATABLE (1)', sampled_percent) END), ' UNION ALL ')
    INTO scan FROM @extschema@.env_rotation_leaves(relation) AS l WHERE l.kind = 'r';
    -- A partitioned table can be without partitions.
    scan := coalesce(scan, 'SELECT NULL::bytea AS value WHERE false');
    EXECUTE format('
        WITH dek AS (
            SELECT stub, absent, count(*) AS n, sum(bytes) FILTER (WHERE bytes > 2000) AS toasted
            FROM (SELECT @extschema@.env_dek_stub(value) AS stub, value IS NULL AS absent, pg_column_size(value) AS bytes
                  FROM (%s) AS s) AS r
            GROUP BY stub, absent),
        due AS (
            SELECT *, @extschema@.env_key_id(stub) AS key_id FROM dek
            WHERE stub IS NOT NULL AND ($1 IS NULL OR @extschema@.env_key_id(stub) = $1)
              AND ($2 <> ''rewrap'' OR @extschema@.env_key_id(stub) IS DISTINCT FROM @extschema@.env_rewrap_target($3)))
        SELECT coalesce(sum(n), 0) AS n, coalesce(sum(n) FILTER (WHERE absent), 0) AS nulls,
               coalesce(sum(n) FILTER (WHERE stub IS NULL AND NOT absent), 0) AS strange,
               (SELECT coalesce(sum(n), 0) FROM due) AS due, (SELECT count(*) FROM due) AS deks,
               (SELECT count(*) FROM due WHERE n = 1) AS once, (SELECT coalesce(sum(toasted), 0) FROM due) AS toasted,
               (SELECT array_agg(DISTINCT key_id ORDER BY key_id) FROM due) AS keys,
               (SELECT count(DISTINCT @extschema@.env_encryption_context(stub)) FROM due) AS contexts
        FROM dek', scan) INTO found USING from_key, method, to_key;
    scale := 100 / sampled_percent;
    all_rows := found.n * scale;
    null_rows := found.nulls * scale;
    not_envelopes := found.strange * scale;
    rows_to_change := found.due * scale;
    data_keys_seen := found.deks;
    -- Haas and Stokes' estimator Duj1, as ANALYZE uses it: of the data keys that were met once, many more were missed.
    data_keys := CASE WHEN found.due = 0 THEN 0
        ELSE found.deks * found.due / (found.due - found.once + found.once * found.due / (found.due * scale)) END;
    keys := coalesce(found.keys, '{}');
    kms_calls := data_keys + CASE method WHEN 'reencrypt' THEN found.contexts ELSE 0 END;
    price_usd := round(kms_calls * usd_per_10000_requests / 10000, 6);
    fraction := found.due / greatest(found.n, 1)::double precision;
    bytes_rewritten := blocks * block_bytes * fraction + found.toasted * scale;
    -- The new row versions, what goes with each, and an image of each old page, which is written again after a checkpoint.
    wal_bytes := bytes_rewritten + rows_to_change * 100
        + CASE WHEN current_setting('full_page_writes')::boolean THEN blocks * block_bytes * least(1, fraction * 10) ELSE 0 END;
    duration := make_interval(secs => (rows_to_change / rows_per_second)::double precision);
END
$$;

-- Who may. To rewrap is no right to decrypt.

REVOKE ALL ON FUNCTION
    env_rewrap(bytea, text),
    env_reencrypt(bytea, text),
    env_reencrypt(bytea, text, text),
    env_opens_to(bytea, text),
    env_opens_to(bytea, text, text),
    env_opens_to(bytea, bytea),
    env_opens_to(bytea, bytea, text),
    env_opens_to(bytea, jsonb),
    env_opens_to(bytea, jsonb, text),
    env_rewrap_warm(bytea[], text),
    env_reencrypt_warm(bytea[], text),
    env_rewrap_target(text),
    env_rotation_lock(bigint),
    env_rotation_unlock(bigint),
    env_rotation_lock_key(oid, smallint),
    env_rotation_leaves(oid),
    env_rotation_triage(text),
    env_rotation_fail(bigint, oid, tid, bytea, bigint, text, text),
    env_rotation_begin(jsonb),
    env_rotation_moves(oid, name),
    env_rotation_type(oid, name),
    env_rotation_statements(oid, jsonb),
    env_rotation_hold(oid, oid),
    env_rotation_give_up(bigint, text, text, text),
    env_rotation_next(bigint, jsonb, bigint, integer),
    env_rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]),
    env_rotation_warm(text, bytea[], text),
    env_rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz),
    env_rotation_end(bigint),
    env_rotation_next_tid(tid),
    env_rotation_verify(bigint),
    env_rotation_abandon(bigint),
    env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric)
    FROM PUBLIC;

REVOKE ALL ON PROCEDURE
    env_rotation_loop(bigint, jsonb),
    env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text),
    env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint),
    env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint)
    FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    env_opens_to(bytea, text),
    env_opens_to(bytea, text, text),
    env_opens_to(bytea, bytea),
    env_opens_to(bytea, bytea, text),
    env_opens_to(bytea, jsonb),
    env_opens_to(bytea, jsonb, text)
    TO envelope_decrypt;

GRANT EXECUTE ON FUNCTION
    env_rewrap(bytea, text),
    env_reencrypt(bytea, text),
    env_reencrypt(bytea, text, text),
    env_rewrap_warm(bytea[], text),
    env_reencrypt_warm(bytea[], text),
    env_rewrap_target(text),
    env_rotation_lock(bigint),
    env_rotation_unlock(bigint),
    env_rotation_lock_key(oid, smallint),
    env_rotation_leaves(oid),
    env_rotation_triage(text),
    env_rotation_fail(bigint, oid, tid, bytea, bigint, text, text),
    env_rotation_begin(jsonb),
    env_rotation_moves(oid, name),
    env_rotation_type(oid, name),
    env_rotation_statements(oid, jsonb),
    env_rotation_hold(oid, oid),
    env_rotation_give_up(bigint, text, text, text),
    env_rotation_next(bigint, jsonb, bigint, integer),
    env_rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]),
    env_rotation_warm(text, bytea[], text),
    env_rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz),
    env_rotation_end(bigint),
    env_rotation_next_tid(tid),
    env_rotation_verify(bigint),
    env_rotation_abandon(bigint),
    env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric)
    TO envelope_rotate;

GRANT EXECUTE ON PROCEDURE
    env_rotation_loop(bigint, jsonb),
    env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text),
    env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint),
    env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint)
    TO envelope_rotate;

GRANT SELECT,
    INSERT (relation, column_number, relation_name, column_name, method, parameters, lock_key, rows_estimated),
    UPDATE (status, pass, leaf, leaf_file, leaf_blocks, next_block, blocks_done, blocks_total, pass_changed, pass_left, not_envelopes,
            target_only, failures, rows_done, kms_calls, seconds, pass_seconds, updated, finished)
    ON env_rotation_run TO envelope_rotate;
GRANT SELECT, INSERT, UPDATE (is_new) ON env_rotation_dek TO envelope_rotate;
GRANT SELECT, INSERT, DELETE ON env_rotation_failure TO envelope_rotate;
GRANT SELECT ON env_rotation TO envelope_rotate, envelope_admin;
GRANT SELECT ON env_rotation_failure TO envelope_admin;

COMMENT ON FUNCTION env_rewrap(bytea, text) IS
    'bring an encrypted value under another KMS key: KMS re-encrypts its data key, the ciphertext stays, nothing is decrypted here';
COMMENT ON FUNCTION env_reencrypt(bytea, text) IS
    'seal an encrypted value again under a data key of the given KMS key; its plaintext is not returned';
COMMENT ON FUNCTION env_reencrypt(bytea, text, text) IS
    'seal an encrypted value with an aad again under a data key of the given KMS key; its plaintext is not returned';
COMMENT ON FUNCTION env_opens_to(bytea, text) IS
    'whether an encrypted value opens to this text';
COMMENT ON FUNCTION env_opens_to(bytea, text, text) IS
    'whether an encrypted value with an aad opens to this text';
COMMENT ON FUNCTION env_opens_to(bytea, bytea) IS
    'whether an encrypted value opens to this bytea';
COMMENT ON FUNCTION env_opens_to(bytea, bytea, text) IS
    'whether an encrypted value with an aad opens to this bytea';
COMMENT ON FUNCTION env_opens_to(bytea, jsonb) IS
    'whether an encrypted value opens to this jsonb';
COMMENT ON FUNCTION env_opens_to(bytea, jsonb, text) IS
    'whether an encrypted value with an aad opens to this jsonb';
COMMENT ON FUNCTION env_dek_stub(bytea) IS
    'the head of an encrypted value without data: one for each data key; null for what is not an encrypted value';
COMMENT ON FUNCTION env_rewrap_warm(bytea[], text) IS
    'have the data keys of these values or stubs rewrapped concurrently, for env_rewrap in this session';
COMMENT ON FUNCTION env_reencrypt_warm(bytea[], text) IS
    'have the data keys of these values or stubs unwrapped concurrently, for env_reencrypt in this session';
COMMENT ON FUNCTION env_rewrap_target(text) IS
    'the key that a key id stands for, if that is known without asking KMS';
COMMENT ON FUNCTION env_rotation_lock(bigint) IS
    'part of env_rotate: take the advisory lock of a run, which an error of the CALL gives back';
COMMENT ON FUNCTION env_rotation_unlock(bigint) IS
    'part of env_rotate: give the advisory lock of a run back';
COMMENT ON FUNCTION env_rotation_lock_key(oid, smallint) IS
    'the key of the advisory lock that the run of a column holds';
COMMENT ON FUNCTION env_rotation_leaves(oid) IS
    'part of env_rotate: the tables that hold the rows of a table, its partitions and children included';
COMMENT ON FUNCTION env_rotation_triage(text) IS
    'part of env_rotate: whether an error is about a row, passes, or ends the run';
COMMENT ON FUNCTION env_rotation_fail(bigint, oid, tid, bytea, bigint, text, text) IS
    'part of env_rotate: count and list rows that are left alone';
COMMENT ON FUNCTION env_rotation_begin(jsonb) IS
    'part of env_rotate: check, lock, and find or make the run';
COMMENT ON FUNCTION env_rotation_moves(oid, name) IS
    'part of env_rotate: the columns that triggers of env_encrypt_trigger move';
COMMENT ON FUNCTION env_rotation_type(oid, name) IS
    'part of env_rotate: text, bytea or jsonb, the type of a column without its domains';
COMMENT ON FUNCTION env_rotation_statements(oid, jsonb) IS
    'part of env_rotate: the statements of a batch';
COMMENT ON FUNCTION env_rotation_hold(oid, oid) IS
    'part of env_rotate: whether a table is one of the run, and stays one for a batch';
COMMENT ON FUNCTION env_rotation_give_up(bigint, text, text, text) IS
    'part of env_rotate: end the CALL, and not the run';
COMMENT ON FUNCTION env_rotation_next(bigint, jsonb, bigint, integer) IS
    'part of env_rotate: where the next batch is';
COMMENT ON FUNCTION env_rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]) IS
    'part of env_rotate: which data keys of a batch are to be changed';
COMMENT ON FUNCTION env_rotation_warm(text, bytea[], text) IS
    'part of env_rotate: ask KMS for what a batch takes';
COMMENT ON FUNCTION env_rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[], bigint, timestamptz) IS
    'part of env_rotate: write down what a batch has done';
COMMENT ON FUNCTION env_rotation_end(bigint) IS
    'part of env_rotate: say how a run ended';
COMMENT ON FUNCTION env_rotation_next_tid(tid) IS
    'part of env_rotate: the tid behind another one on its page';
COMMENT ON FUNCTION env_rotation_verify(bigint) IS
    'part of env_encrypt_column: an error if values did not open';
COMMENT ON FUNCTION env_rotation_abandon(bigint) IS
    'give up a run that is not running; what it has done stays';
COMMENT ON FUNCTION env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric) IS
    'what env_rotate would do: rows, data keys, KMS calls and their price, bytes, WAL and time; asks KMS nothing';
COMMENT ON PROCEDURE env_rotation_loop(bigint, jsonb) IS
    'part of env_rotate: the batches of a run';
COMMENT ON PROCEDURE env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text) IS
    'bring the encrypted values of a column under another KMS key (rewrap) or under new data keys (reencrypt), online and resumable';
COMMENT ON PROCEDURE env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric, integer, bigint) IS
    'encrypt the plaintext of a column into a bytea column, online and resumable';
COMMENT ON PROCEDURE env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint) IS
    'decrypt the values of a bytea column into a plaintext column, online and resumable';
COMMENT ON TABLE env_rotation_run IS
    'the runs of env_rotate, env_encrypt_column and env_decrypt_column; see the view env_rotation';
COMMENT ON TABLE env_rotation_dek IS
    'the data keys that reencrypting runs have met';
COMMENT ON TABLE env_rotation_failure IS
    'rows that runs have left alone, and why';
COMMENT ON SEQUENCE env_rotation_run_run_id_seq IS
    'numbers of runs';
COMMENT ON SEQUENCE env_rotation_failure_failure_id_seq IS
    'numbers of failures';
COMMENT ON VIEW env_rotation IS
    'every run: what, how far, how fast, and whether it is running';
