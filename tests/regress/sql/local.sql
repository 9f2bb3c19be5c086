-- The local provider: a key, and every overload there and back.
SELECT env_local_create_key('regress');

-- text
SELECT env_decrypt(env_encrypt('hello'::text, 'local:regress'));
SELECT env_decrypt(env_encrypt('hello'::text, 'local:regress', '{"app":"shop"}'));
SELECT env_decrypt(env_encrypt('hello'::text, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');
-- an untyped literal is text
SELECT env_decrypt(env_encrypt('hello', 'local:regress'));
SELECT env_decrypt(env_encrypt('', 'local:regress')) = '' AS empty_string_is_a_value;
SELECT env_decrypt(env_encrypt(E'\u00e9\u20ac\U0001F600', 'local:regress')) = E'\u00e9\u20ac\U0001F600' AS unicode;

-- bytea
SELECT env_decrypt_bytea(env_encrypt('\x00ff10'::bytea, 'local:regress'));
SELECT env_decrypt_bytea(env_encrypt('\x00ff10'::bytea, 'local:regress', '{"app":"shop"}'));
SELECT env_decrypt_bytea(env_encrypt('\x00ff10'::bytea, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');
SELECT env_decrypt_bytea(env_encrypt('\x'::bytea, 'local:regress')) = '\x' AS empty_bytea_is_a_value;

-- jsonb
SELECT env_decrypt_jsonb(env_encrypt('{"b":[1,2.50,null],"a":"\u00e9"}'::jsonb, 'local:regress')) = '{"b":[1,2.50,null],"a":"\u00e9"}' AS same;
SELECT env_decrypt_jsonb(env_encrypt('{"a":1}'::jsonb, 'local:regress', '{"app":"shop"}'));
SELECT env_decrypt_jsonb(env_encrypt('{"a":1}'::jsonb, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');
SELECT env_decrypt_jsonb(env_encrypt('null'::jsonb, 'local:regress')), env_decrypt_jsonb(env_encrypt('[]'::jsonb, 'local:regress'));

-- The generated twin makes the same values.
SELECT env_decrypt(env_encrypt_generated('hello'::text, 'local:regress')),
       env_decrypt(env_encrypt_generated('hello'::text, 'local:regress', '{"app":"shop"}')),
       env_decrypt(env_encrypt_generated('hello'::text, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');
SELECT env_decrypt_bytea(env_encrypt_generated('\x00'::bytea, 'local:regress')),
       env_decrypt_bytea(env_encrypt_generated('\x00'::bytea, 'local:regress', '{"app":"shop"}')),
       env_decrypt_bytea(env_encrypt_generated('\x00'::bytea, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');
SELECT env_decrypt_jsonb(env_encrypt_generated('1'::jsonb, 'local:regress')),
       env_decrypt_jsonb(env_encrypt_generated('1'::jsonb, 'local:regress', '{"app":"shop"}')),
       env_decrypt_jsonb(env_encrypt_generated('1'::jsonb, 'local:regress', '{"app":"shop"}', 'row 1'), 'row 1');

-- Two values of one plaintext differ, and share their data key.
WITH pair AS (
    SELECT env_encrypt('hello', 'local:regress') AS a, env_encrypt('hello', 'local:regress') AS b
)
SELECT a <> b AS values_differ, env_dek_id(a) = env_dek_id(b) AS same_dek FROM pair;

-- Sizes around the edges of PostgreSQL's storage (short header, compression, TOAST), through a table.
CREATE TABLE sizes (id int PRIMARY KEY, plain text, secret bytea);
INSERT INTO sizes
SELECT n, p, env_encrypt(p, 'local:regress')
FROM unnest(ARRAY[0, 1, 15, 16, 17, 126, 127, 1999, 2000, 8191, 8192, 65535, 65536, 1000000]) AS n,
     repeat('x', n) AS p;
SELECT count(*) AS rows,
       count(*) FILTER (WHERE env_decrypt(secret) IS DISTINCT FROM plain) AS differences,
       count(DISTINCT octet_length(secret) - octet_length(plain)) AS distinct_overheads,
       count(DISTINCT env_dek_id(secret)) AS deks
FROM sizes;
DROP TABLE sizes;

-- A rotated local key has a new version for new values. Old values still open.
SELECT env_encrypt('before', 'local:regress') AS old_value \gset
SELECT env_local_rotate_key('regress');
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT env_encrypt('after', 'local:regress') AS new_value \gset
SELECT env_decrypt(:'old_value'), env_decrypt(:'new_value'),
       env_dek_id(:'old_value') = env_dek_id(:'new_value') AS same_dek;
SELECT env_local_rotate_key('regress');
