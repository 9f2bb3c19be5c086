-- Each error with its SQLSTATE, message, detail and hint.
\set SHOW_CONTEXT never
SELECT env_local_create_key('errors');
SELECT env_encrypt('secret', 'local:errors') AS value \gset

-- 22023: a key id of no known form
SELECT env_encrypt('x', '');
\echo :SQLSTATE
SELECT env_encrypt('x', 'my key');
\echo :SQLSTATE
SELECT env_encrypt('x', 'alias/');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:');
\echo :SQLSTATE
SELECT env_encrypt('x', 'arn:aws:s3:::bucket');
\echo :SQLSTATE
SELECT env_encrypt('x', 'arn:aws:kms:eu-west-1:12:key/0b6d1dcf-8f5c-4b5b-9e42-3a2f6b5b8a11');
\echo :SQLSTATE

-- 22023: a key id is not repeated, since it is a plaintext where two arguments were swapped; see the server's log, too
SELECT env_encrypt('local:errors', 'the secret');
\echo :SQLSTATE
SELECT env_encrypt('alias/app'::text, 'the secret', '{}', 'row');
SELECT env_encrypt('not a key', 'the secret');
SELECT env_encrypt('x', 'local:the secret');
SELECT env_encrypt('x', 'arn:the secret');
SELECT env_encrypt('x', E'alias/the\nsecret');
SELECT env_rotate_dek('the secret');
SELECT env_rewrap(:'value', 'the secret');
SELECT env_reencrypt(:'value', 'the secret', 'x');
SELECT env_is_envelope(:'value', 'the secret');
SELECT env_is_same_key('the secret', 'local:errors');
SELECT env_key_usage('the secret');
SELECT env_local_create_key('the secret');
SELECT env_local_rotate_key('the secret');
SET envelope_pg.allowed_keys = 'local:errors';
SELECT env_encrypt('local:errors', 'the secret');
SELECT env_rotate_dek('the secret');
RESET envelope_pg.allowed_keys;

-- 22023: an encryption context that is not a flat object of strings
SELECT env_encrypt('x', 'local:errors', '[]');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:errors', '"app"');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:errors', 'null');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:errors', '{"app":{"name":"shop"}}');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:errors', '{"tenant":7}');
\echo :SQLSTATE
SELECT env_encrypt('x', 'local:errors', '{"tenant":null}');
\echo :SQLSTATE
-- a name of our own
SELECT env_encrypt('x', 'local:errors', '{"envelope_pg":"v1"}');
\echo :SQLSTATE
-- too long
SELECT env_encrypt('x', 'local:errors', jsonb_build_object('a', repeat('x', 70000)));
\echo :SQLSTATE

-- 42704: no such local key
SELECT env_encrypt('x', 'local:nobody');
\echo :SQLSTATE

-- 22P03: not a value of ours
SELECT env_decrypt('hello');
\echo :SQLSTATE
SELECT env_decrypt('');
\echo :SQLSTATE
SELECT env_decrypt(substr(:'value'::bytea, 1, 60));
\echo :SQLSTATE
SELECT env_decrypt(set_byte(:'value', 4, 77));
\echo :SQLSTATE
SELECT env_decrypt(set_byte(:'value', 5, 128));
\echo :SQLSTATE
SELECT env_key_id('hello');
\echo :SQLSTATE
SELECT * FROM env_inspect('\xf645');
\echo :SQLSTATE
SELECT env_dek_id('');
\echo :SQLSTATE
SELECT env_encryption_context('\x00');
\echo :SQLSTATE

-- 0A000: from the future: a version, a suite, a data key kept elsewhere
SELECT env_decrypt(set_byte(:'value', 2, 2));
\echo :SQLSTATE
SELECT env_decrypt(set_byte(:'value', 3, 2));
\echo :SQLSTATE
SELECT env_decrypt(set_byte(:'value', 5, 2));
\echo :SQLSTATE

-- 22000: changed somewhere; one message for all
-- the last byte of the tag
SELECT env_decrypt(set_byte(:'value', octet_length(:'value'::bytea) - 1, get_byte(:'value', octet_length(:'value'::bytea) - 1) # 1));
\echo :SQLSTATE
-- the commitment
SELECT env_decrypt(set_byte(:'value', 6, get_byte(:'value', 6) # 1));
\echo :SQLSTATE
-- the last byte of the value missing
SELECT env_decrypt(substr(:'value'::bytea, 1, octet_length(:'value'::bytea) - 1));
\echo :SQLSTATE
-- a byte too many
SELECT env_decrypt(:'value'::bytea || '\x00');
\echo :SQLSTATE
-- the type
SELECT env_decrypt_bytea(set_byte(:'value', 4, 0));
\echo :SQLSTATE
-- the wrapped data key of another data key (same length, so it can be pasted)
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT env_encrypt('secret', 'local:errors') AS other \gset
SELECT env_dek_id(:'value') <> env_dek_id(:'other') AS other_dek,
       octet_length(:'value'::bytea) = octet_length(:'other'::bytea) AS same_length;
SELECT env_decrypt(overlay(:'value'::bytea PLACING i.wrapped_dek FROM position(v.wrapped_dek IN :'value'::bytea)))
FROM env_inspect(:'other') AS i, env_inspect(:'value') AS v;
\echo :SQLSTATE

-- 42804: opened as another type
SELECT env_decrypt_bytea(:'value');
\echo :SQLSTATE
SELECT env_decrypt_jsonb(:'value');
\echo :SQLSTATE
SELECT env_decrypt(env_encrypt('\x00'::bytea, 'local:errors'));
\echo :SQLSTATE
SELECT env_decrypt(env_encrypt('1'::jsonb, 'local:errors'));
\echo :SQLSTATE

-- 42501: not in allowed_keys; an alias is refused before KMS is asked
SET envelope_pg.allowed_keys = 'local:other';
SELECT env_encrypt('x', 'local:errors');
\echo :SQLSTATE
SELECT env_decrypt(:'value');
\echo :SQLSTATE
SELECT env_encrypt('x', 'alias/app');
\echo :SQLSTATE
RESET envelope_pg.allowed_keys;

-- After all that the session still works.
SELECT env_decrypt(:'value');
