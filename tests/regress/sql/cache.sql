-- The session's cache of data keys.
SELECT env_local_create_key('cache');
SELECT env_local_create_key('cache2');
SELECT env_cache_flush() AS nothing_cached_yet;

CREATE TABLE t (id int PRIMARY KEY, secret bytea);
INSERT INTO t SELECT i, env_encrypt('secret ' || i, 'local:cache') FROM generate_series(1, 1000) AS i;
SELECT count(DISTINCT env_dek_id(secret)) AS deks FROM t;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;

-- A flush makes the session forget; it asks the broker again, which has the current data key of all sessions.
SELECT env_cache_flush() > 0 AS flushed;
SELECT env_cache_flush() AS nothing_left;
INSERT INTO t SELECT i, env_encrypt('secret ' || i, 'local:cache') FROM generate_series(1001, 2000) AS i;
SELECT count(DISTINCT env_dek_id(secret)) AS deks FROM t;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;

-- A flush everywhere reaches the broker, too: the next value gets a new data key, and the old ones still open.
SELECT env_cache_flush(true) > 0 AS flushed;
INSERT INTO t SELECT i, env_encrypt('secret ' || i, 'local:cache') FROM generate_series(2001, 3000) AS i;
SELECT count(DISTINCT env_dek_id(secret)) AS deks FROM t;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;

-- A new current data key at once.
SELECT env_rotate_dek('local:cache', '{}') AS new_dek \gset
SELECT env_dek_id(env_encrypt('x', 'local:cache')) = :'new_dek' AS is_used;
SELECT env_rotate_dek('local:cache', '{"a":"b"}') AS new_dek_in_context \gset
SELECT env_dek_id(env_encrypt('x', 'local:cache', '{"a":"b"}')) = :'new_dek_in_context' AS is_used,
       env_dek_id(env_encrypt('x', 'local:cache')) = :'new_dek' AS other_is_still_used;
SELECT env_rotate_dek('local:cache') IS NULL AS nothing_is_made_yet;
SELECT env_dek_id(env_encrypt('x', 'local:cache', '{"a":"b"}')) = :'new_dek_in_context' AS contexts_follow_not;
SELECT env_rotate_dek(NULL);
SELECT env_rotate_dek('local:cache', NULL);
SELECT env_rotate_dek('local:nobody', '{}');

-- What the session has, and what it waited for.
SELECT env_cache_flush(true) > 0 AS flushed;
BEGIN;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;
SELECT statement, transaction FROM env_kms_calls();
COMMIT;
SELECT purpose, key_id, uses, state, octet_length(dek_id), age_seconds < 60, ttl_seconds <= 900 FROM env_stat_cache ORDER BY uses;
SELECT env_encrypt('x', 'local:cache') IS NOT NULL;
SELECT purpose, named_key_id, key_id, encryption_context FROM env_stat_cache WHERE purpose = 'encrypt';

-- Many data keys at once.
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT * FROM env_warm('t', 'secret');
SELECT * FROM env_warm('t', 'secret');
SELECT * FROM env_warm(ARRAY(SELECT secret FROM t LIMIT 10));
SELECT env_warm(secret) FROM t WHERE id > 1500;
SELECT env_warm(v) FROM (VALUES (NULL), ('\x'::bytea), ('no envelope'::bytea)) AS s (v);
SELECT env_warm(secret) FROM t WHERE false;
SELECT * FROM env_warm('t', 'nowhere');
SELECT * FROM env_warm('t', 'id');

-- A data key per key id and encryption context.
SELECT count(DISTINCT env_dek_id(v)) AS deks
FROM generate_series(1, 2) AS i,
     unnest(ARRAY[env_encrypt('x' || i, 'local:cache'), env_encrypt('x' || i, 'local:cache2'),
                  env_encrypt('x' || i, 'local:cache', '{"a":"b"}')]) AS v;

-- No more than dek_max_uses values under one data key.
SET envelope_pg.dek_max_uses = 10;
SELECT env_cache_flush() > 0 AS flushed;
SELECT count(DISTINCT env_dek_id(v)) AS deks, max(n) AS most_uses
FROM (SELECT v, count(*) OVER (PARTITION BY env_dek_id(v)) AS n
      FROM (SELECT env_encrypt('x' || i, 'local:cache') AS v FROM generate_series(1, 25) AS i OFFSET 0) AS s) AS s;
RESET envelope_pg.dek_max_uses;

-- No more than dek_max_bytes of plaintext under one data key.
SET envelope_pg.dek_max_bytes = '1kB';
SELECT env_cache_flush() > 0 AS flushed;
SELECT count(DISTINCT env_dek_id(v)) AS deks
FROM (SELECT env_encrypt(repeat('x', 300), 'local:cache') AS v FROM generate_series(1, 9) AS i OFFSET 0) AS s;
RESET envelope_pg.dek_max_bytes;

-- A cache of one entry reads as well, only slower.
SET envelope_pg.cache_entries = 1;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;
RESET envelope_pg.cache_entries;

-- An expired entry is fetched again.
SET envelope_pg.cache_ttl = '1s';
SELECT env_decrypt(secret) FROM t WHERE id = 1;
SELECT pg_sleep(1.2);
SELECT env_decrypt(secret) FROM t WHERE id = 1;
RESET envelope_pg.cache_ttl;
DROP TABLE t;
