-- Rotation: what is changed, what is left alone, and what is refused. Progress lines have times in them.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('rotate_old'), env_local_create_key('rotate_new');

-- Single values. To rewrap leaves the ciphertext as it is; the data key stays. To reencrypt makes a new one.
SELECT env_encrypt('text', 'local:rotate_old', '{"a": "b"}', 'row') AS value \gset
SELECT env_rewrap(:'value', 'local:rotate_new') AS rewrapped \gset
SELECT env_key_id(:'rewrapped'), env_dek_id(:'value') = env_dek_id(:'rewrapped') AS same_dek,
       right(:'value', 88) = right(:'rewrapped', 88) AS same_ciphertext, env_encryption_context(:'rewrapped'),
       env_decrypt(:'rewrapped', 'row');
SELECT env_rewrap(:'rewrapped', 'local:rotate_new') = :'rewrapped' AS already_there;
SELECT env_cache_flush(true) > 0 AS flushed;
SELECT env_reencrypt(:'value', 'local:rotate_new', 'row') AS reencrypted \gset
SELECT env_key_id(:'reencrypted'), env_dek_id(:'value') = env_dek_id(:'reencrypted') AS same_dek,
       env_encryption_context(:'reencrypted'), env_decrypt(:'reencrypted', 'row');
SELECT env_decrypt_jsonb(env_reencrypt(env_encrypt('{"x": 1}'::jsonb, 'local:rotate_old'), 'local:rotate_new'));
SELECT env_decrypt_bytea(env_reencrypt(env_encrypt('\x00ff'::bytea, 'local:rotate_old'), 'local:rotate_new'));
SELECT env_rewrap(NULL, 'local:rotate_new'), env_reencrypt(NULL, 'local:rotate_new');
SELECT env_rewrap(:'value', NULL);
\echo :SQLSTATE
SELECT env_reencrypt(:'value', 'local:rotate_new', NULL);
\echo :SQLSTATE
SELECT env_reencrypt(:'value', 'local:rotate_new');
\echo :SQLSTATE
SELECT env_reencrypt(:'value', 'local:rotate_new', 'another row');
\echo :SQLSTATE
SELECT env_rewrap('\xdeadbeef', 'local:rotate_new');
\echo :SQLSTATE
SELECT env_rewrap(:'value', 'local:rotate_missing');
\echo :SQLSTATE
SELECT env_rewrap(:'value', 'arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6');
\echo :SQLSTATE
SET envelope_pg.allowed_keys = 'local:rotate_new';
SELECT env_rewrap(:'value', 'local:rotate_new');
\echo :SQLSTATE
SET envelope_pg.allowed_keys = 'local:rotate_old';
SELECT env_rewrap(:'value', 'local:rotate_new');
\echo :SQLSTATE
RESET envelope_pg.allowed_keys;

-- What a value opens to.
SELECT env_opens_to(:'value', 'text', 'row') AS yes, env_opens_to(:'value', 'Text', 'row') AS another_text,
       env_opens_to(:'value', 'text', 'x') AS another_row, env_opens_to(:'value', 'text'::text) AS without_aad,
       env_opens_to(:'value', '\x74657874'::bytea, 'row') AS another_type, env_opens_to('\x00', 'text'::text) AS no_value,
       env_opens_to(NULL, 'text'::text) AS nothing, env_opens_to(:'value', NULL::text) AS null_text;

-- A column with all that can be in one: NULLs, values that are none, a value that was changed, large ones, a trigger, a
-- stored column that is computed from it, a domain, names that need quotes.
CREATE SCHEMA "Odd 'Schema'";
CREATE DOMAIN encrypted AS bytea CHECK (VALUE IS NULL OR length(VALUE) > 1);
CREATE TABLE "Odd 'Schema'"."100% odd" (
    id int PRIMARY KEY, "the ::value%s" encrypted, key text GENERATED ALWAYS AS (env_key_id("the ::value%s")) STORED,
    updates int NOT NULL DEFAULT 0
);
CREATE FUNCTION count_updates() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updates := OLD.updates + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER count_updates BEFORE UPDATE ON "Odd 'Schema'"."100% odd" FOR EACH ROW EXECUTE FUNCTION count_updates();
INSERT INTO "Odd 'Schema'"."100% odd" (id, "the ::value%s")
SELECT i, CASE WHEN i % 10 <> 0 THEN env_encrypt('text ' || i, 'local:rotate_old') END FROM generate_series(1, 1000) AS i;
INSERT INTO "Odd 'Schema'"."100% odd" (id, "the ::value%s")
SELECT 1000 + i, env_encrypt(repeat(i::text, 1000000), 'local:rotate_old') FROM generate_series(1, 3) AS i;
-- The data key of this one cannot be unwrapped: a byte in its wrapped form was changed.
INSERT INTO "Odd 'Schema'"."100% odd" (id, "the ::value%s")
SELECT 2000, set_byte("the ::value%s", 100, get_byte("the ::value%s", 100) # 1) FROM "Odd 'Schema'"."100% odd" WHERE id = 1;
-- And these are under the new key.
INSERT INTO "Odd 'Schema'"."100% odd" (id, "the ::value%s")
SELECT 3000 + i, env_encrypt('text', 'local:rotate_new') FROM generate_series(1, 5) AS i;
SELECT sampled_percent, all_rows, null_rows, not_envelopes, rows_to_change, data_keys_seen, data_keys, keys, kms_calls, price_usd,
       bytes_rewritten > 3000000 AS bytes, wal_bytes > bytes_rewritten AS wal, duration > '0' AS duration,
       rows_tried > 0 AS tried, obstacles
FROM env_rotation_plan('"Odd ''Schema''"."100% odd"', 'the ::value%s', 'local:rotate_new');
CALL env_rotate('"Odd ''Schema''"."100% odd"', 'the ::value%s', 'local:rotate_new');
SELECT key, count(*), min(updates), max(updates) FROM "Odd 'Schema'"."100% odd" GROUP BY key ORDER BY key;
SELECT count(*) FROM "Odd 'Schema'"."100% odd" WHERE id <= 1000 AND env_decrypt("the ::value%s") = 'text ' || id;
SELECT id, length(env_decrypt("the ::value%s")) FROM "Odd 'Schema'"."100% odd" WHERE id BETWEEN 1001 AND 1003 ORDER BY id;
SELECT relation, column_name, method, to_key, state, pid, rows_done, rows_left, failures, not_envelopes, eta
FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT relation::regclass, tid, dek_id IS NOT NULL AS of_a_data_key, row_count, sqlstate, message FROM env_rotation_failure;
-- Reencrypt: the same, but each value is opened.
CALL env_rotate('"Odd ''Schema''"."100% odd"', 'the ::value%s', 'local:rotate_new', 'reencrypt');
SELECT key, count(*), count(DISTINCT env_dek_id("the ::value%s")) AS deks, max(updates)
FROM "Odd 'Schema'"."100% odd" GROUP BY key ORDER BY key;
SELECT count(*) FROM "Odd 'Schema'"."100% odd" WHERE id <= 1000 AND env_decrypt("the ::value%s") = 'text ' || id;
-- Another run has nothing to do.
CALL env_rotate('"Odd ''Schema''"."100% odd"', 'the ::value%s', 'local:rotate_new');
SELECT rows_done, pass, kms_calls FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SET client_min_messages = error;
DROP SCHEMA "Odd 'Schema'" CASCADE;
SET client_min_messages = warning;

-- Values that are no encrypted values; rows that a constraint or a trigger refuses; values that are bound to their rows.
CREATE TABLE bound (id int PRIMARY KEY, aad text, value bytea, CHECK (id <> 7 OR env_key_id(value) = 'local:rotate_old'));
INSERT INTO bound SELECT i, 'bound:' || i, env_encrypt('text ' || i, 'local:rotate_old', '{}', 'bound:' || i)
FROM generate_series(1, 500) AS i;
UPDATE bound SET aad = 'wrong' WHERE id IN (3, 4);
UPDATE bound SET aad = NULL WHERE id = 5;
INSERT INTO bound SELECT 1000 + i, NULL, '\x00' FROM generate_series(1, 3) AS i;
CALL env_rotate('bound', 'value', 'local:rotate_new', 'reencrypt', aad_column => 'aad');
SELECT state, rows_done, failures, not_envelopes FROM env_rotation WHERE relation = 'bound' ORDER BY run_id;
SELECT sqlstate, message, count(*) FROM env_rotation_failure WHERE relation = 'bound'::regclass GROUP BY 1, 2 ORDER BY 1, 2;
DELETE FROM bound WHERE id > 1000;
SELECT count(*) FROM bound WHERE env_decrypt(value, 'bound:' || id) = 'text ' || id;
ALTER TABLE bound DROP CONSTRAINT bound_check;
SELECT env_key_id(value), count(*) FROM bound GROUP BY 1 ORDER BY 1;
CALL env_rotate('bound', 'value', 'local:rotate_old', 'reencrypt', aad_expression => $$'bound:' || id$$);
SELECT env_key_id(value), count(env_decrypt(value, 'bound:' || id)) FROM bound GROUP BY 1 ORDER BY 1;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'secret plaintext of row %', NEW.id; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON bound FOR EACH ROW WHEN (OLD.id = 9) EXECUTE FUNCTION refuse();
CALL env_rotate('bound', 'value', 'local:rotate_new');
SELECT failures, not_envelopes, rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT tid = (SELECT ctid FROM bound WHERE id = 9) AS is_that_row, sqlstate, message
FROM env_rotation_failure ORDER BY failure_id DESC LIMIT 1;
-- Too many of them end the run; the same CALL resumes it.
DROP TRIGGER refuse ON bound;
CREATE TRIGGER refuse BEFORE UPDATE ON bound FOR EACH ROW WHEN (OLD.id < 100) EXECUTE FUNCTION refuse();
\set VERBOSITY sqlstate
CALL env_rotate('bound', 'value', 'local:rotate_old', max_failures => 50);
\set VERBOSITY default
SELECT state FROM env_rotation ORDER BY run_id DESC LIMIT 1;
DROP TRIGGER refuse ON bound;
CALL env_rotate('bound', 'value', 'local:rotate_old', max_failures => 50);
SELECT state, failures, rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- Only some: those of one key, or of one data key.
UPDATE bound SET value = env_encrypt('text', 'local:rotate_new', '{}', 'bound:' || id) WHERE id <= 10;
CALL env_rotate('bound', 'value', 'local:rotate_old', from_key => 'local:rotate_missing');
SELECT rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT env_dek_id(value) AS dek FROM bound WHERE id = 1 \gset
CALL env_rotate('bound', 'value', 'local:rotate_new', 'reencrypt', aad_expression => $$'bound:' || id$$, from_dek => :'dek');
SELECT rows_done, rows_left FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT count(*) FROM bound WHERE env_is_envelope(value) AND env_dek_id(value) = :'dek';

-- Reencrypt to another key: what others write under the old one after the first pass, with a data key of their own, is changed
-- by a later pass; what they write under the new one is theirs.
CREATE TABLE late (id int, value bytea);
INSERT INTO late SELECT i, env_encrypt('text ' || i, 'local:rotate_old') FROM generate_series(1, 10) AS i;
CALL env_rotate('late', 'value', 'local:rotate_new', 'reencrypt', max_passes => 1);
SELECT env_cache_flush(true) > 0 AS flushed;
INSERT INTO late VALUES (11, env_encrypt('text 11', 'local:rotate_old')), (12, env_encrypt('text 12', 'local:rotate_new'));
CALL env_rotate('late', 'value', 'local:rotate_new', 'reencrypt');
SELECT state, pass, rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT env_key_id(value), count(*) FROM late WHERE env_decrypt(value) = 'text ' || id GROUP BY 1;
DROP TABLE late;

-- Partitions and children, each in turn.
CREATE TABLE parted (id int, value bytea) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_2 (note text, value bytea, id int);
ALTER TABLE parted_2 DROP COLUMN note;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (100) TO (200);
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (200) TO (1000) PARTITION BY RANGE (id);
CREATE TABLE parted_3_1 PARTITION OF parted_3 DEFAULT;
INSERT INTO parted SELECT i, env_encrypt('text ' || i, 'local:rotate_old') FROM generate_series(0, 999) AS i;
CALL env_rotate('parted', 'value', 'local:rotate_new');
SELECT tableoid::regclass, env_key_id(value), count(*) FROM parted GROUP BY 1, 2 ORDER BY 1;
SELECT relation, rows_done, blocks_done = blocks_total AS all_blocks FROM env_rotation ORDER BY run_id DESC LIMIT 1;
-- One that is dropped while the run is interrupted in it.
INSERT INTO parted VALUES (50, '\x00'), (150, '\x00');
UPDATE parted SET value = set_byte(value, 100, get_byte(value, 100) # 1) WHERE id = 20;
INSERT INTO parted SELECT i, env_encrypt('text ' || i, 'local:rotate_new') FROM generate_series(0, 99) AS i;
\set VERBOSITY sqlstate
CALL env_rotate('parted', 'value', 'local:rotate_old', batch_blocks => 1, max_failures => 0);
\set VERBOSITY default
SELECT leaf::regclass, next_block < leaf_blocks AS in_the_middle FROM envelope_internal.rotation_run WHERE status = 'open';
DROP TABLE parted_1;
CALL env_rotate('parted', 'value', 'local:rotate_old', batch_blocks => 100);
SELECT tableoid::regclass, env_key_id(value), count(*) FROM parted WHERE id <> 150 GROUP BY 1, 2 ORDER BY 1;
CREATE TABLE mother (id int, value bytea);
CREATE TABLE daughter () INHERITS (mother);
INSERT INTO mother VALUES (1, env_encrypt('one', 'local:rotate_old'));
INSERT INTO daughter VALUES (2, env_encrypt('two', 'local:rotate_old'));
CALL env_rotate('mother', 'value', 'local:rotate_new');
SELECT tableoid::regclass, id, env_key_id(value) FROM mother ORDER BY id;
CREATE TABLE nothing (value bytea);
CALL env_rotate('nothing', 'value', 'local:rotate_new');
SELECT state, rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- What is refused.
CREATE VIEW seen AS SELECT * FROM mother;
CREATE TABLE computed (plain text, value bytea GENERATED ALWAYS AS (env_encrypt_generated(plain, 'local:rotate_old')) STORED);
CALL env_rotate('seen', 'value', 'local:rotate_new');
\echo :SQLSTATE
CALL env_rotate('mother', 'nothing', 'local:rotate_new');
\echo :SQLSTATE
CALL env_rotate('mother', 'id', 'local:rotate_new');
\echo :SQLSTATE
CALL env_rotate('computed', 'value', 'local:rotate_new');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'no such key');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', NULL);
\echo :SQLSTATE
CALL env_rotate(NULL, 'value', 'local:rotate_new');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', 'encrypt');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', 'shred');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', on_locked => 'hope');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', batch_blocks => 0);
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', from_key => 'alias/app');
\echo :SQLSTATE
CALL env_rotate('mother', 'value', 'local:rotate_new', 'reencrypt', aad_column => 'id', aad_expression => 'id');
\echo :SQLSTATE
BEGIN;
CALL env_rotate('mother', 'value', 'local:rotate_new');
\echo :SQLSTATE
ROLLBACK;
DO $$ BEGIN PERFORM 1; CALL env_rotate('mother', 'value', 'local:rotate_old'); END $$;
SELECT id, env_key_id(value) FROM mother ORDER BY id;
CREATE FUNCTION calls() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL env_rotate('mother', 'value', 'local:rotate_new'); END $$;
SELECT calls();
\echo :SQLSTATE
SELECT count(*) AS open_runs FROM env_rotation WHERE state NOT IN ('done', 'failed rows', 'abandoned');
SELECT env_rotation_abandon(-1);
\echo :SQLSTATE
SELECT env_rotation_abandon(min(run_id)) FROM env_rotation WHERE state = 'done';
\echo :SQLSTATE

DROP FUNCTION calls(), refuse(), count_updates();
DROP TABLE bound, parted, mother, daughter, nothing, computed CASCADE;
DROP DOMAIN encrypted;
