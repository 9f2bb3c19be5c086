-- Index keys and search tokens.
\set SHOW_CONTEXT never
SELECT env_local_create_key('search');

-- Index keys
SELECT env_create_index_key('person.ssn', 'local:search');
SELECT env_create_index_key('person.name', 'local:search', '{"table": "person"}');
SELECT env_create_index_key('person.ssn', 'local:search');
\echo :SQLSTATE
SELECT env_create_index_key('x', 'local:search', '{"purpose": "other"}');
\echo :SQLSTATE
SELECT env_create_index_key(NULL, 'local:search');
\echo :SQLSTATE
SELECT env_create_index_key('', 'local:search');
SELECT env_create_index_key(repeat('x', 64), 'local:search');
SELECT env_create_index_key('x', NULL);
\echo :SQLSTATE
SELECT env_create_index_key('x', 'local:nowhere');
\echo :SQLSTATE
SELECT name, version, key_id, encryption_context - 'id' AS encryption_context, created <= now() AS created, retired, columns
FROM env_index_key ORDER BY name;

-- The table is append-only, for everybody.
UPDATE envelope_internal.index_key SET is_retired = true;
\echo :SQLSTATE
DELETE FROM envelope_internal.index_key;
\echo :SQLSTATE
TRUNCATE envelope_internal.index_key;
\echo :SQLSTATE
SET session_replication_role = replica;
DELETE FROM envelope_internal.index_key;
\echo :SQLSTATE
RESET session_replication_role;
INSERT INTO envelope_internal.index_key (name, version, revision, stub)
SELECT 'another', 1, 1, stub FROM envelope_internal.index_key WHERE name = 'person.ssn';
\echo :SQLSTATE
-- Whoever may move index keys to another KMS key cannot put in one that he knows.
CREATE ROLE search_rotator IN ROLE envelope_rotate;
SELECT envelope_internal.index_key_stub('local:search', '{"purpose": "envelope_pg index key", "name": "person.ssn", "version": "1"}') AS stub,
       envelope_internal.index_key_stub('local:search', '{"purpose": "envelope_pg index key", "name": "person.ssn", "version": "9"}') AS stub_9 \gset
SET ROLE search_rotator;
INSERT INTO envelope_internal.index_key (name, version, revision, stub) VALUES ('person.ssn', 1, 2, :'stub');
\echo :SQLSTATE
INSERT INTO envelope_internal.index_key (name, version, revision, stub) VALUES ('person.ssn', 9, 1, :'stub_9');
\echo :SQLSTATE
INSERT INTO envelope_internal.index_key (name, version, revision, stub, is_retired)
SELECT name, version, 2, stub, true FROM envelope_internal.index_key WHERE name = 'person.ssn';
\echo :SQLSTATE
SELECT env_rewrap_index_keys('local:search');
RESET ROLE;
DROP ROLE search_rotator;

-- Equality. Every type has tokens of 16 bytes, of its own, and the same ones for equal values.
SELECT octet_length(env_blind_index('078-05-1120', 'person.ssn')) AS bytes,
       get_byte(env_blind_index('078-05-1120', 'person.ssn'), 0) AS version;
SELECT env_blind_index('1', 'person.ssn') = env_blind_index('1', 'person.ssn') AS same,
       env_blind_index('1', 'person.ssn') = env_blind_index('2', 'person.ssn') AS other_value,
       env_blind_index('1', 'person.ssn') = env_blind_index('1', 'person.name') AS other_name,
       env_blind_index('1', 'person.ssn') = env_blind_index('1'::bytea, 'person.ssn') AS other_type;
SELECT env_blind_index(1.0, 'person.ssn') = env_blind_index(1.00, 'person.ssn') AS numeric,
       env_blind_index(1, 'person.ssn') = env_blind_index(1::bigint, 'person.ssn') AS integer,
       env_blind_index(1::smallint, 'person.ssn') = env_blind_index(1::bigint, 'person.ssn') AS smallint,
       env_blind_index('-1'::numeric, 'person.ssn') = env_blind_index('-1.000'::numeric, 'person.ssn') AS negative,
       env_blind_index('x'::varchar, 'person.ssn') = env_blind_index('x', 'person.ssn') AS varchar;
SELECT count(DISTINCT token) FROM (VALUES
    (env_blind_index('2026-11-26'::date, 'person.ssn')), (env_blind_index('infinity'::date, 'person.ssn')),
    (env_blind_index('2026-11-26 00:00+00'::timestamptz, 'person.ssn')), (env_blind_index('-infinity'::timestamptz, 'person.ssn')),
    (env_blind_index('715c0818-5825-4245-a755-138a6d9a11e6'::uuid, 'person.ssn')), (env_blind_index('NaN'::numeric, 'person.ssn')),
    (env_blind_index('', 'person.ssn')), (env_blind_index(''::bytea, 'person.ssn'))) AS v (token);
SET timezone = 'Asia/Kathmandu';
SET datestyle = 'German';
SET extra_float_digits = -15;
SELECT env_blind_index('2026-11-26 12:00+00'::timestamptz, 'person.ssn') = env_blind_index('2026-11-26 17:45+05:45'::timestamptz, 'person.ssn') AS one_time;
RESET timezone;
RESET datestyle;
RESET extra_float_digits;
SELECT env_blind_index(NULL::text, 'person.ssn') IS NULL AS "null";
SELECT env_blind_index('x', NULL);
\echo :SQLSTATE
-- In the wrong order: what could be a plaintext is not shown.
SELECT env_blind_index('person.ssn', '078-05-1120');
\echo :SQLSTATE
SELECT env_blind_index(true, 'person.ssn');
\echo :SQLSTATE
SELECT env_blind_index('2026-11-26'::timestamp, 'person.ssn');
\echo :SQLSTATE

-- Few bits
SELECT octet_length(env_blind_index('x', 'person.ssn', 8)) AS "8", octet_length(env_blind_index('x', 'person.ssn', 9)) AS "9",
       substr(env_blind_index('x', 'person.ssn'), 1, 2) = env_blind_index('x', 'person.ssn', 8) AS first_bits;
SELECT count(DISTINCT env_blind_index(n, 'person.ssn', 5)) FROM generate_series(1, 1000) AS n;
SELECT env_blind_index('x', 'person.ssn', 0);
\echo :SQLSTATE
SELECT env_blind_index('x', 'person.ssn', 33);

-- Prefixes
SELECT cardinality(env_prefix_tokens('Lovelace', 'person.name', '{3,4,5}')) AS three, cardinality(env_prefix_tokens('Lo', 'person.name', '{3}')) AS none,
       octet_length((env_prefix_tokens('Lovelace', 'person.name', '{3}'))[1]) AS bytes;
SELECT needle, env_prefix_tokens('Lovelace', 'person.name', '{3,5}') @> ARRAY[env_prefix_token(needle, 'person.name', '{3,5}')] AS found
FROM unnest(ARRAY['Lov', 'Love', 'Lovel', 'Lovelace', 'Lovela Bond', 'lov', 'Max']) AS needle;
SELECT env_prefix_token('', 'person.name', '{3,5}');
\echo :SQLSTATE
SELECT env_prefix_token('Lo', 'person.name', '{3,5}');
SELECT env_prefix_token(NULL, 'person.name', '{3,5}') IS NULL AS matches_nothing;
SELECT env_prefix_token('Lovelace', 'person.name', '{2}');
\echo :SQLSTATE
SELECT env_prefix_token('Lovelace', 'person.name', '{}');
SELECT env_prefix_token('Lovelace', 'person.name', '{3,NULL}');
SELECT env_prefix_token('Lovelace', 'person.name', NULL);
\echo :SQLSTATE

-- Buckets
SELECT n, env_bucket_token(n, 'person.name', 10) = env_bucket_token(0, 'person.name', 10) AS with_0,
       env_bucket_token(n, 'person.name', 10) = ANY (env_bucket_tokens(-10, 9, 'person.name', 10)) AS found
FROM unnest(ARRAY[-11, -10, -1, 0, 9, 10]) AS n;
SELECT n, env_bucket_token(n, 'person.name', 0.1) = ANY (env_bucket_tokens(0.1, 0.2, 'person.name', 0.1)) AS found
FROM unnest(ARRAY[0.09999999999999999999, 0.1, 0.2, 0.29999999999999999999, 0.3]) AS n;
SELECT d, env_bucket_token(d, 'person.name', 30, '2000-01-01') = ANY (env_bucket_tokens('2000-01-15', '2000-02-10', 'person.name', 30, '2000-01-01')) AS found
FROM unnest(ARRAY['1999-12-31', '2000-01-01', '2000-02-29', '2000-03-01']::date[]) AS d;
SELECT t, env_bucket_token(t, 'person.name', interval '1 hour') = env_bucket_token('2000-01-01 00:59:59.999999+00'::timestamptz, 'person.name', interval '60 min') AS same_hour
FROM unnest(ARRAY['2000-01-01 00:00+00', '2000-01-01 01:00+00']::timestamptz[]) AS t;
SELECT cardinality(env_bucket_tokens(9, 0, 'person.name', 10)) AS empty_range, cardinality(env_bucket_tokens(1, 0, 'person.name', 1)) AS none;
SELECT env_bucket_tokens(0, 100000, 'person.name', 1);
\echo :SQLSTATE
SELECT cardinality(env_bucket_tokens(0, 1999, 'person.name', 1, max_buckets => 2000));
SELECT env_bucket_tokens(0, 2000000000, 'person.name', 1, max_buckets => 2000000000);
\echo :SQLSTATE
SELECT env_bucket_tokens(0, 5, 'person.name', 1, max_buckets => 0);
SELECT env_bucket_tokens(NULL, 5, 'person.name', 1);
\echo :SQLSTATE
SELECT env_bucket_token(5, 'person.name', 0);
\echo :SQLSTATE
SELECT env_bucket_token('2000-01-01 00:00+00'::timestamptz, 'person.name', interval '1 month');
SELECT env_bucket_token(1.5, 'person.name', 'NaN');
SELECT env_bucket_token('Infinity'::numeric, 'person.name', 1);
\echo :SQLSTATE
SELECT env_bucket_token('infinity'::date, 'person.name', 1);
SELECT env_bucket_token('-infinity'::timestamptz, 'person.name', interval '1 day');
SELECT env_bucket_token(1e300, 'person.name', 1e-300);
\echo :SQLSTATE
SELECT env_bucket_token(NULL::bigint, 'person.name', 1) IS NULL AS "null";

-- Normalization: the same for values and for searches.
SELECT env_normalize('  Ada.Lovelace@Example.ORG ', '{email}') AS email, env_normalize('+49 (30) 1234', '{digits}') AS digits,
       env_normalize(' X ', '{trim,lower}') AS both, env_normalize(' X ', '{}') AS neither, env_normalize(NULL, '{trim}') IS NULL AS "null";
SELECT env_normalize('x', '{upper}');
\echo :SQLSTATE
SELECT env_normalize('x', NULL);
SELECT env_normalize('x', array_fill('trim'::text, '{33}'));
\echo :SQLSTATE
SELECT env_prefix_token('Lovelace', 'person.name', array_fill(3, '{1000000}'));

-- An index on tokens is used, in generic plans and with candidates, too.
CREATE TABLE person (id int PRIMARY KEY, ssn bytea, ssn_token bytea UNIQUE, name_tokens bytea[], age_token bytea);
INSERT INTO person
SELECT n, env_encrypt('ssn ' || n, 'local:search'), env_blind_index('ssn ' || n, 'person.ssn'),
       env_prefix_tokens('name ' || n, 'person.name', '{5,6,7,8}'), env_bucket_token(n, 'person.name', 100)
FROM generate_series(1, 3000) AS n;
CREATE INDEX person_name ON person USING gin (name_tokens);
CREATE INDEX person_age ON person (age_token);
ANALYZE person;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM person WHERE ssn_token = env_blind_index('ssn 77', 'person.ssn');
EXPLAIN (COSTS OFF) SELECT id FROM person WHERE ssn_token = ANY (env_blind_index_candidates('ssn 77', 'person.ssn'));
EXPLAIN (COSTS OFF) SELECT id FROM person WHERE name_tokens @> ARRAY[env_prefix_token('name 77', 'person.name', '{5,6,7,8}')];
EXPLAIN (COSTS OFF) SELECT id FROM person WHERE age_token = ANY (env_bucket_tokens(150, 250, 'person.name', 100));
SET plan_cache_mode = force_generic_plan;
PREPARE by_ssn (text) AS SELECT id, env_decrypt(ssn) FROM person WHERE ssn_token = env_blind_index($1, 'person.ssn');
EXPLAIN (COSTS OFF) EXECUTE by_ssn ('ssn 77');
EXECUTE by_ssn ('ssn 77');
EXECUTE by_ssn ('ssn 78');
PREPARE by_candidates (text) AS SELECT id FROM person WHERE ssn_token = ANY (env_blind_index_candidates($1, 'person.ssn'));
EXPLAIN (COSTS OFF) EXECUTE by_candidates ('ssn 77');
EXECUTE by_candidates ('ssn 77');
PREPARE by_prefix (text) AS SELECT count(*) FROM person WHERE name_tokens && env_prefix_token_candidates($1, 'person.name', '{5,6,7,8}');
EXPLAIN (COSTS OFF) EXECUTE by_prefix ('name 77');
EXECUTE by_prefix ('name 77');
PREPARE by_range (int, int) AS SELECT count(*) FROM person WHERE age_token = ANY (env_bucket_tokens($1, $2, 'person.name', 100));
EXPLAIN (COSTS OFF) EXECUTE by_range (150, 250);
EXECUTE by_range (150, 250);
RESET plan_cache_mode;
RESET enable_seqscan;
SELECT count(*) FROM person WHERE name_tokens @> ARRAY[env_prefix_token('name 77', 'person.name', '{5,6,7,8}')] AND env_decrypt(ssn) LIKE 'ssn 77%';
SELECT count(*) FROM person WHERE age_token = ANY (env_bucket_tokens(150, 250, 'person.name', 100));
\set VERBOSITY terse
INSERT INTO person (id, ssn_token) VALUES (0, env_blind_index('ssn 77', 'person.ssn'));
\set VERBOSITY default
\echo :SQLSTATE
SELECT count(*) FROM person AS one JOIN person AS other ON one.ssn_token = other.ssn_token;

-- Wrong: this finds nothing, and looks right.
SELECT count(*) FROM person WHERE ssn = env_encrypt('ssn 77', 'local:search');

-- Rotation of an index key: candidates have the tokens of all live versions.
SELECT env_rotate_index_key('person.ssn');
SELECT count(*) FROM person WHERE ssn_token = env_blind_index('ssn 77', 'person.ssn');
SELECT count(*) FROM person WHERE ssn_token = ANY (env_blind_index_candidates('ssn 77', 'person.ssn'));
SELECT count(*) FROM person WHERE ssn_token = env_blind_index('ssn 77', 'person.ssn', version => 1);
SELECT env_blind_index('x', 'person.ssn', version => 3);
\echo :SQLSTATE
UPDATE person SET ssn_token = env_blind_index(env_decrypt(ssn), 'person.ssn');
SELECT env_retire_index_key('person.ssn', 1);
SELECT count(*) FROM person WHERE ssn_token = ANY (env_blind_index_candidates('ssn 77', 'person.ssn'));
SELECT env_blind_index('x', 'person.ssn', version => 1);
\echo :SQLSTATE
SELECT env_retire_index_key('person.ssn', 9);
\echo :SQLSTATE
SELECT name, version, retired IS NOT NULL AS is_retired FROM env_index_key ORDER BY 1, 2;

-- Rewrapping changes no token.
SELECT env_local_create_key('search_two');
SELECT env_rewrap_index_keys('local:search_two');
SELECT env_rewrap_index_keys('local:search_two');
SELECT name, version, key_id FROM env_index_key ORDER BY 1, 2;
SELECT count(*) FROM person WHERE ssn_token = env_blind_index('ssn 77', 'person.ssn');
SELECT env_cache_flush() > 0 AS flushed;
SELECT count(*) FROM person WHERE ssn_token = env_blind_index('ssn 77', 'person.ssn');

-- What a transaction takes back is not there.
BEGIN;
SELECT env_create_index_key('gone', 'local:search');
SELECT octet_length(env_blind_index('x', 'gone'));
ROLLBACK;
SELECT env_blind_index('x', 'gone');
\echo :SQLSTATE

-- Rights: to search is a right of its own.
CREATE ROLE search_reader IN ROLE envelope_decrypt;
CREATE ROLE searcher IN ROLE envelope_search;
SET ROLE search_reader;
SELECT env_blind_index('x', 'person.ssn');
\echo :SQLSTATE
SET ROLE searcher;
SELECT octet_length(env_blind_index('x', 'person.ssn'));
SELECT count(*) FROM env_index_key;
SELECT env_create_index_key('y', 'local:search');
\echo :SQLSTATE
SELECT stub FROM envelope_internal.index_key;
\echo :SQLSTATE
RESET ROLE;
DROP ROLE search_reader, searcher;

-- Plans
SELECT * FROM env_index_plan(1000, 1000000);
SELECT * FROM env_index_plan(1000, 1000000, 12);
SELECT * FROM env_index_plan(5, 1000000);
SELECT * FROM env_index_plan(0, 0);
\echo :SQLSTATE
CREATE TABLE plain AS SELECT CASE WHEN n % 10 < 3 THEN 'frequent' ELSE 'value ' || n % 100 END AS value FROM generate_series(1, 10000) AS n;
SELECT * FROM env_index_plan('plain', 'value');

SELECT * FROM env_index_plan('person', 'ssn');
\echo :SQLSTATE
SELECT distinct_values FROM env_index_plan('person', 'ssn_token');
SELECT env_create_index_key('no context', 'local:search', NULL);
SELECT env_create_index_key('no context', 'local:search');

SELECT env_mask('078-05-1120', 4) AS mask, env_mask('1120', 4) AS short, env_mask('', 4) AS empty, env_mask(NULL, 4) IS NULL AS "null";
SELECT env_mask('x', -1);
\echo :SQLSTATE
DROP TABLE person, plain;

-- One bad row: null and counted, and why; but not for a denial.
SELECT env_encrypt('a text', 'local:search') AS value \gset
SELECT env_damaged_values() AS before \gset
SELECT env_try_decrypt(:'value') AS whole, env_try_decrypt(set_byte(:'value', 150, 255 - get_byte(:'value', 150))) IS NULL AS changed,
       env_try_decrypt('no value') IS NULL AS no_value, env_try_decrypt(:'value', 'aad') IS NULL AS other_aad, env_try_decrypt(NULL) IS NULL AS "null";
SELECT env_damaged_values() - :before AS counted;
SELECT env_try_decrypt_bytea(:'value');
\echo :SQLSTATE
SELECT env_error(:'value') IS NULL AS whole, env_error('no value') AS no_value, env_error(:'value', 'aad') AS other_aad;
SET envelope_pg.allowed_keys = 'local:other';
SELECT env_try_decrypt(:'value');
\echo :SQLSTATE
SELECT env_error(:'value');
RESET envelope_pg.allowed_keys;
