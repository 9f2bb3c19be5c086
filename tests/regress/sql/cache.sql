-- The session's cache of data keys.
SELECT env_local_create_key('cache');
SELECT env_local_create_key('cache2');
SELECT env_cache_flush() AS nothing_cached_yet;

CREATE TABLE t (id int PRIMARY KEY, secret bytea);
INSERT INTO t SELECT i, env_encrypt('secret ' || i, 'local:cache') FROM generate_series(1, 1000) AS i;
SELECT count(DISTINCT env_dek_id(secret)) AS deks FROM t;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;

-- A flush makes the session forget; the next value gets a new data key, and the old ones still open.
SELECT env_cache_flush() > 0 AS flushed;
SELECT env_cache_flush() AS nothing_left;
INSERT INTO t SELECT i, env_encrypt('secret ' || i, 'local:cache') FROM generate_series(1001, 2000) AS i;
SELECT count(DISTINCT env_dek_id(secret)) AS deks FROM t;
SELECT count(*) FROM t WHERE env_decrypt(secret) = 'secret ' || id;

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
