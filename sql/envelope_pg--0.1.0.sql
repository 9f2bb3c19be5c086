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

CREATE FUNCTION env_key_id(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_key_id';

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
COMMENT ON FUNCTION env_local_create_key(text) IS
    'create a key of the local provider in the file envelope_pg.local_keyring; returns its key id';
COMMENT ON FUNCTION env_local_rotate_key(text) IS
    'add a version to a key of the local provider; older values still open; returns the version';
