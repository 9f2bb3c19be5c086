-- What the extension calls of its own functions, under names that nobody else can overload: whoever may create in the schema
-- of the extension could add a function with one more argument and a default, and so make each call ambiguous.

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext text, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext text, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext bytea, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext bytea, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_encrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext jsonb, key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.encrypt(plaintext jsonb, key_id text, encryption_context jsonb, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_encrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.to_jsonb(value anyelement) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 50 AS 'MODULE_PATHNAME', 'env_to_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt(value bytea) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt(value bytea, aad text) RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_text';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt_bytea(value bytea) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt_bytea(value bytea, aad text) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_decrypt_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt_jsonb(value bytea) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.decrypt_jsonb(value bytea, aad text) RETURNS jsonb
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_decrypt_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.is_envelope(value bytea) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_is_envelope';

CREATE OR REPLACE FUNCTION envelope_internal.key_id(value bytea) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 5 AS 'MODULE_PATHNAME', 'env_key_id';

CREATE OR REPLACE FUNCTION envelope_internal.key_ids(value bytea) RETURNS text[]
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_key_ids';

CREATE OR REPLACE FUNCTION envelope_internal.is_same_key(key_id text, other_key_id text) RETURNS boolean
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_is_same_key';

CREATE OR REPLACE FUNCTION envelope_internal.dek_id(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 2 AS 'MODULE_PATHNAME', 'env_dek_id';

CREATE OR REPLACE FUNCTION envelope_internal.encryption_context(value bytea) RETURNS jsonb
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_encryption_context';

CREATE OR REPLACE FUNCTION envelope_internal.rotate_dek(key_id text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_rotate_dek';

CREATE OR REPLACE FUNCTION envelope_internal.kms_calls(OUT statement bigint, OUT transaction bigint, OUT session bigint) RETURNS record
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_kms_calls';

CREATE OR REPLACE FUNCTION envelope_internal.rewrap(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_rewrap';

CREATE OR REPLACE FUNCTION envelope_internal.reencrypt(value bytea, to_key text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE OR REPLACE FUNCTION envelope_internal.reencrypt(value bytea, to_key text, aad text) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL RESTRICTED CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_reencrypt';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext text, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_text';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext bytea) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext bytea, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_opens_to_bytea';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext jsonb) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE STRICT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.opens_to(value bytea, plaintext jsonb, aad text) RETURNS boolean
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 40 AS 'MODULE_PATHNAME', 'env_opens_to_jsonb';

CREATE OR REPLACE FUNCTION envelope_internal.splice(value bytea, donor bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT COST 10 AS 'MODULE_PATHNAME', 'env_splice';

CREATE OR REPLACE FUNCTION envelope_internal.dek_stub(value bytea) RETURNS bytea
    LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'env_dek_stub';

CREATE OR REPLACE FUNCTION envelope_internal.inspect(
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

REVOKE ALL ON FUNCTION
    envelope_internal.encrypt(text, text, jsonb),
    envelope_internal.encrypt(text, text, jsonb, text),
    envelope_internal.encrypt(bytea, text, jsonb),
    envelope_internal.encrypt(bytea, text, jsonb, text),
    envelope_internal.encrypt(jsonb, text, jsonb),
    envelope_internal.encrypt(jsonb, text, jsonb, text),
    envelope_internal.decrypt(bytea),
    envelope_internal.decrypt(bytea, text),
    envelope_internal.decrypt_bytea(bytea),
    envelope_internal.decrypt_bytea(bytea, text),
    envelope_internal.decrypt_jsonb(bytea),
    envelope_internal.decrypt_jsonb(bytea, text),
    envelope_internal.rotate_dek(text),
    envelope_internal.rewrap(bytea, text),
    envelope_internal.reencrypt(bytea, text),
    envelope_internal.reencrypt(bytea, text, text),
    envelope_internal.opens_to(bytea, text),
    envelope_internal.opens_to(bytea, text, text),
    envelope_internal.opens_to(bytea, bytea),
    envelope_internal.opens_to(bytea, bytea, text),
    envelope_internal.opens_to(bytea, jsonb),
    envelope_internal.opens_to(bytea, jsonb, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.encrypt(text, text, jsonb),
    envelope_internal.encrypt(text, text, jsonb, text),
    envelope_internal.encrypt(bytea, text, jsonb),
    envelope_internal.encrypt(bytea, text, jsonb, text),
    envelope_internal.encrypt(jsonb, text, jsonb),
    envelope_internal.encrypt(jsonb, text, jsonb, text)
    TO envelope_encrypt;
GRANT EXECUTE ON FUNCTION
    envelope_internal.decrypt(bytea),
    envelope_internal.decrypt(bytea, text),
    envelope_internal.decrypt_bytea(bytea),
    envelope_internal.decrypt_bytea(bytea, text),
    envelope_internal.decrypt_jsonb(bytea),
    envelope_internal.decrypt_jsonb(bytea, text),
    envelope_internal.opens_to(bytea, text),
    envelope_internal.opens_to(bytea, text, text),
    envelope_internal.opens_to(bytea, bytea),
    envelope_internal.opens_to(bytea, bytea, text),
    envelope_internal.opens_to(bytea, jsonb),
    envelope_internal.opens_to(bytea, jsonb, text)
    TO envelope_decrypt;
GRANT EXECUTE ON FUNCTION envelope_internal.rotate_dek(text) TO envelope_admin, envelope_rotate;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rewrap(bytea, text),
    envelope_internal.reencrypt(bytea, text),
    envelope_internal.reencrypt(bytea, text, text)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.encrypt(text, text, jsonb) IS
    'encrypt text under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION envelope_internal.encrypt(text, text, jsonb, text) IS
    'encrypt text under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION envelope_internal.encrypt(bytea, text, jsonb) IS
    'encrypt bytea under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION envelope_internal.encrypt(bytea, text, jsonb, text) IS
    'encrypt bytea under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION envelope_internal.encrypt(jsonb, text, jsonb) IS
    'encrypt jsonb under a data key of the given KMS key and encryption context';
COMMENT ON FUNCTION envelope_internal.encrypt(jsonb, text, jsonb, text) IS
    'encrypt jsonb under a data key of the given KMS key, encryption context and aad';
COMMENT ON FUNCTION envelope_internal.to_jsonb(anyelement) IS
    'a value of any type as jsonb that is the same in every session';
COMMENT ON FUNCTION envelope_internal.decrypt(bytea) IS
    'decrypt a value that was encrypted from text';
COMMENT ON FUNCTION envelope_internal.decrypt(bytea, text) IS
    'decrypt a value that was encrypted from text with an aad';
COMMENT ON FUNCTION envelope_internal.decrypt_bytea(bytea) IS
    'decrypt a value that was encrypted from bytea';
COMMENT ON FUNCTION envelope_internal.decrypt_bytea(bytea, text) IS
    'decrypt a value that was encrypted from bytea with an aad';
COMMENT ON FUNCTION envelope_internal.decrypt_jsonb(bytea) IS
    'decrypt a value that was encrypted from jsonb';
COMMENT ON FUNCTION envelope_internal.decrypt_jsonb(bytea, text) IS
    'decrypt a value that was encrypted from jsonb with an aad';
COMMENT ON FUNCTION envelope_internal.is_envelope(bytea) IS
    'whether a bytea has the form of an encrypted value (nothing is decrypted)';
COMMENT ON FUNCTION envelope_internal.key_ids(bytea) IS
    'all KMS keys that wrap the data key of an encrypted value; each of them can open it';
COMMENT ON FUNCTION envelope_internal.is_same_key(text, text) IS
    'whether two key ARNs, or local:name, are the same key or replicas of the same multi-Region key';
COMMENT ON FUNCTION envelope_internal.key_id(bytea) IS
    'the KMS key that wraps the data key of an encrypted value: a key ARN, or local:name';
COMMENT ON FUNCTION envelope_internal.dek_id(bytea) IS
    'the id (32-byte key commitment) of the data key of an encrypted value';
COMMENT ON FUNCTION envelope_internal.splice(bytea, bytea) IS
    'the value with the wrapped keys of a value or stub of the same data key';
COMMENT ON FUNCTION envelope_internal.encryption_context(bytea) IS
    'the KMS encryption context of an encrypted value';
COMMENT ON FUNCTION envelope_internal.rotate_dek(text) IS
    'have new current data keys made for a KMS key, for all sessions, each at the next use of its encryption context; returns NULL';
COMMENT ON FUNCTION envelope_internal.kms_calls() IS
    'KMS calls that the current statement, the current transaction and this session have caused';
COMMENT ON FUNCTION envelope_internal.rewrap(bytea, text) IS
    'bring an encrypted value under another KMS key: KMS re-encrypts its data key, the ciphertext stays, nothing is decrypted here';
COMMENT ON FUNCTION envelope_internal.reencrypt(bytea, text) IS
    'seal an encrypted value again under a data key of the given KMS key; its plaintext is not returned';
COMMENT ON FUNCTION envelope_internal.reencrypt(bytea, text, text) IS
    'seal an encrypted value with an aad again under a data key of the given KMS key; its plaintext is not returned';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, text) IS
    'whether an encrypted value opens to this text';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, text, text) IS
    'whether an encrypted value with an aad opens to this text';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, bytea) IS
    'whether an encrypted value opens to this bytea';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, bytea, text) IS
    'whether an encrypted value with an aad opens to this bytea';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, jsonb) IS
    'whether an encrypted value opens to this jsonb';
COMMENT ON FUNCTION envelope_internal.opens_to(bytea, jsonb, text) IS
    'whether an encrypted value with an aad opens to this jsonb';
COMMENT ON FUNCTION envelope_internal.dek_stub(bytea) IS
    'the head of an encrypted value without data: one for each data key; null for what is not an encrypted value';
COMMENT ON FUNCTION envelope_internal.inspect(bytea) IS
    'the unencrypted parts of an encrypted value, and its sizes in bytes';
