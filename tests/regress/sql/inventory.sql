-- env_inventory and env_key_usage: in a database of its own, so that all of its columns are known.
\set SHOW_CONTEXT never
CREATE DATABASE envelope_pg_regress_inventory;
\c envelope_pg_regress_inventory
SET client_min_messages = warning;
CREATE SCHEMA crypto;
CREATE EXTENSION envelope_pg SCHEMA crypto;
SET search_path = public, crypto;
SELECT env_local_create_key('inv_a'), env_local_create_key('inv_b');

-- Nothing here yet.
SELECT * FROM env_inventory();
SELECT * FROM env_key_usage('local:inv_a');

-- Two keys, three data keys, nulls, values that are none; a column without any; values out of line.
CREATE TABLE person (id int, ssn bytea, note bytea, photo bytea);
ALTER TABLE person ALTER photo SET STORAGE EXTERNAL;
INSERT INTO person SELECT i, env_encrypt('ssn ' || i, 'local:inv_a'), 'not encrypted', NULL FROM generate_series(1, 100) AS i;
SELECT env_cache_flush(true) > 0 AS new_data_keys;
INSERT INTO person SELECT i, env_encrypt('ssn ' || i, 'local:inv_a'), NULL, env_encrypt(repeat('x', 10000), 'local:inv_b') FROM generate_series(101, 150) AS i;
INSERT INTO person VALUES (151, NULL, NULL, NULL), (152, 'hand-made', NULL, NULL), (153, '', NULL, NULL);
-- Damaged, or of a later release.
INSERT INTO person SELECT 154, set_byte(ssn, 2, 2), NULL, NULL FROM person WHERE id = 1;
INSERT INTO person SELECT 155, substr(ssn, 1, 50), NULL, NULL FROM person WHERE id = 1;
-- Names that need quotes, a domain, partitions, a materialized view, a temporary table.
CREATE SCHEMA "Odd % Schema";
CREATE DOMAIN secret AS bytea CHECK (env_is_envelope(VALUE));
CREATE TABLE "Odd % Schema"."it's $query$" ("col "" %s" secret);
INSERT INTO "Odd % Schema"."it's $query$" VALUES (env_encrypt('x', 'local:inv_b'));
CREATE TABLE event (id int, body bytea) PARTITION BY LIST (id);
CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1);
CREATE TABLE event_2 PARTITION OF event FOR VALUES IN (2);
INSERT INTO event VALUES (1, env_encrypt('x', 'local:inv_a')), (2, env_encrypt('x', 'local:inv_b'));
CREATE TABLE parent (v bytea);
CREATE TABLE child () INHERITS (parent);
INSERT INTO child VALUES (env_encrypt('x', 'local:inv_a'));
CREATE MATERIALIZED VIEW copied AS SELECT ssn FROM person WHERE id < 3;
CREATE MATERIALIZED VIEW not_yet AS SELECT ssn FROM person WITH NO DATA;
CREATE TEMP TABLE scratch AS SELECT ssn FROM person WHERE id < 4;
SELECT * FROM env_inventory('public');
SELECT * FROM env_inventory('Odd % Schema');
SELECT relation, column_name, content, key_id, rows FROM env_inventory() WHERE relation = 'scratch'::regclass;
SELECT sum(rows) = (SELECT count(*) FROM person) AS complete FROM env_inventory() WHERE relation = 'person'::regclass AND column_name = 'ssn';
SELECT * FROM env_inventory('no such schema');
\echo :SQLSTATE

-- Blocks: the values under the second key came later.
CREATE TABLE blocks (v bytea);
INSERT INTO blocks SELECT env_encrypt('x', 'local:inv_a') FROM generate_series(1, 200);
INSERT INTO blocks SELECT env_encrypt('x', 'local:inv_b') FROM generate_series(1, 200);
SELECT key_id, rows, first_block = (SELECT min((ctid::text::point)[0]) FROM blocks WHERE env_key_id(v) = key_id) AS first,
       last_block = (SELECT max((ctid::text::point)[0]) FROM blocks WHERE env_key_id(v) = key_id) AS last, last_block > first_block AS several
FROM env_inventory() WHERE relation = 'blocks'::regclass;
DROP TABLE blocks;

-- May I disable this key?
SELECT * FROM env_key_usage('local:inv_a');
DELETE FROM person WHERE id > 153;
DELETE FROM person WHERE env_key_id(photo) = 'local:inv_b';
TRUNCATE event_2, "Odd % Schema"."it's $query$";
SELECT * FROM env_key_usage('local:inv_b');

-- A value with a second key needs that, too: disabling either is to be known.
CREATE TABLE two AS
SELECT (substr(v, 1, 40) || int2send((19 + bytes)::int2) || substr(v, 43, bytes) || '\x020010' || '\x0c01' || 'local:inv_b' || '\x0000' || substr(v, 43 + bytes)) AS v
FROM (SELECT ssn, get_byte(ssn, 40) * 256 + get_byte(ssn, 41) FROM person WHERE id = 1) AS s (v, bytes);
SELECT env_is_envelope(v), env_key_ids(v) FROM two;
SELECT * FROM env_key_usage('local:inv_b');
SELECT key_id, rows, deks FROM env_inventory() WHERE relation = 'two'::regclass;
DROP TABLE two;

-- Replicas of a multi-Region key count as the key.
CREATE TABLE replicas AS
SELECT ('\xf64501010000' || repeat('c1', 32) || '00000029' || '01' || '002621' || '0280' || '0019df6690e5'
    || '1234abcd12ab34cd56ef1234567890ab' || encode(region::bytea, 'hex') || encode('blob', 'hex') || repeat('aa', 43))::bytea AS v
FROM unnest(ARRAY['us-west-2', 'us-east-1']) AS region;
SELECT state, stored_key_id, rows, detail FROM env_key_usage('arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab');
DROP TABLE replicas;

SELECT * FROM env_key_usage('alias/app');
\echo :SQLSTATE
SELECT * FROM env_key_usage(NULL);
\echo :SQLSTATE

-- What cannot be examined makes the answer incomplete: types with bytea in them, foreign tables.
CREATE TYPE pair AS (id int, secret bytea);
CREATE TYPE span AS RANGE (subtype = bytea);
CREATE DOMAIN spans AS span[];
CREATE TABLE packed (list bytea[], pair pair, pairs pair[], number int, json jsonb, span span, set span_multirange, spans spans);
CREATE FOREIGN DATA WRAPPER no_handler;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER no_handler;
CREATE FOREIGN TABLE remote (secret bytea) SERVER elsewhere;
SELECT * FROM env_key_usage('local:inv_b');
DROP TABLE packed;
DROP FOREIGN TABLE remote;

-- The caller's rights: without SELECT, without USAGE, and with rows that a policy hides.
CREATE ROLE regress_auditor IN ROLE envelope_admin;
CREATE TABLE policed (v bytea);
INSERT INTO policed SELECT ssn FROM person WHERE id = 1;
ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA crypto TO regress_auditor;
GRANT SELECT ON policed, event_1, event_2, parent, child, copied TO regress_auditor;
SET ROLE regress_auditor;
SELECT * FROM crypto.env_inventory_columns();
SELECT * FROM crypto.env_key_usage('local:inv_b');
RESET ROLE;
-- All rights to read are enough; no right to decrypt is needed.
GRANT pg_read_all_data TO regress_auditor;
ALTER TABLE policed DISABLE ROW LEVEL SECURITY;
SET ROLE regress_auditor;
SELECT * FROM crypto.env_key_usage('local:inv_b');
SELECT crypto.env_decrypt(v) FROM policed;
\echo :SQLSTATE
RESET ROLE;

-- A search_path of the caller's has no part in it.
CREATE SCHEMA evil;
CREATE FUNCTION evil.env_is_envelope(bytea) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
SET search_path = evil, pg_catalog, crypto, public;
SELECT state, rows FROM env_key_usage('local:inv_a') LIMIT 1;
RESET search_path;

-- Nobody else may call them.
CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA crypto TO regress_nobody;
SET ROLE regress_nobody;
SELECT * FROM crypto.env_inventory();
\echo :SQLSTATE
SELECT * FROM crypto.env_inventory_columns();
\echo :SQLSTATE
SELECT * FROM crypto.env_key_usage('local:inv_a');
\echo :SQLSTATE
RESET ROLE;
\c postgres
DROP DATABASE envelope_pg_regress_inventory;
DROP ROLE regress_auditor, regress_nobody;
