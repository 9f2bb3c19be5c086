-- A NULL plaintext or value gives NULL. A NULL key, context or aad is an error and never a silent NULL.
\set SHOW_CONTEXT never
SELECT env_local_create_key('nulls');

SELECT env_encrypt(NULL::text, 'local:nulls') IS NULL AS text,
       env_encrypt(NULL::bytea, 'local:nulls') IS NULL AS bytea,
       env_encrypt(NULL::jsonb, 'local:nulls') IS NULL AS jsonb,
       env_encrypt(NULL::text, 'local:nulls', '{"a":"b"}') IS NULL AS with_context,
       env_encrypt(NULL::text, 'local:nulls', '{"a":"b"}', 'row 1') IS NULL AS with_aad,
       env_encrypt_generated(NULL::text, 'local:nulls') IS NULL AS generated;

SELECT env_decrypt(NULL) IS NULL AS text,
       env_decrypt_bytea(NULL) IS NULL AS bytea,
       env_decrypt_jsonb(NULL) IS NULL AS jsonb,
       env_decrypt(NULL, 'row 1') IS NULL AS text_with_aad,
       env_decrypt_bytea(NULL, 'row 1') IS NULL AS bytea_with_aad,
       env_decrypt_jsonb(NULL, 'row 1') IS NULL AS jsonb_with_aad;

SELECT env_is_envelope(NULL) IS NULL AS is_envelope,
       env_key_id(NULL) IS NULL AS key_id,
       env_dek_id(NULL) IS NULL AS dek_id,
       env_encryption_context(NULL) IS NULL AS context;
SELECT value_bytes IS NULL AS inspect FROM env_inspect(NULL);

-- jsonb null is a value, and not NULL.
SELECT env_encrypt('null'::jsonb, 'local:nulls') IS NOT NULL AS jsonb_null_is_a_value;

-- NULL key
SELECT env_encrypt('x'::text, NULL);
\echo :SQLSTATE
SELECT env_encrypt('\x00'::bytea, NULL);
\echo :SQLSTATE
SELECT env_encrypt('1'::jsonb, NULL);
\echo :SQLSTATE
SELECT env_encrypt_generated('x'::text, NULL);
\echo :SQLSTATE

-- NULL context
SELECT env_encrypt('x'::text, 'local:nulls', NULL);
\echo :SQLSTATE
SELECT env_encrypt('x'::text, 'local:nulls', NULL, 'row 1');
\echo :SQLSTATE

-- NULL aad
SELECT env_encrypt('x'::text, 'local:nulls', '{}', NULL);
\echo :SQLSTATE
SELECT env_decrypt(env_encrypt('x'::text, 'local:nulls', '{}', 'row 1'), NULL);
\echo :SQLSTATE
SELECT env_decrypt_bytea(env_encrypt('\x00'::bytea, 'local:nulls', '{}', 'row 1'), NULL);
\echo :SQLSTATE
SELECT env_decrypt_jsonb(env_encrypt('1'::jsonb, 'local:nulls', '{}', 'row 1'), NULL);
\echo :SQLSTATE
