-- env_rotate on Citus, as far as it can be seen without Citus: its catalogs and functions are stood in for by some that know one node
-- and tables with one shard, the table itself. tests/server/tests/citus.rs has the real one.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char", partkey text, repmodel "char");
CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint);
CREATE TABLE pg_catalog.pg_dist_placement (placementid bigint, shardid bigint, groupid integer);
CREATE TABLE pg_catalog.pg_dist_node (nodeid integer, groupid integer, nodename text, nodeport integer, noderole text);
INSERT INTO pg_catalog.pg_dist_node VALUES (1, 0, 'here', 5432, 'primary');
CREATE FUNCTION pg_catalog.shard_name(relation regclass, shardid bigint) RETURNS text LANGUAGE sql AS 'SELECT relation::text';
CREATE FUNCTION pg_catalog.citus_is_coordinator() RETURNS boolean LANGUAGE sql AS $$ SELECT coalesce(current_setting('test.is_worker', true), '') = '' $$;
CREATE FUNCTION pg_catalog.relation_is_a_known_shard(relation regclass) RETURNS boolean LANGUAGE sql AS 'SELECT relation::text LIKE ''%\_102008''';
CREATE FUNCTION pg_catalog.citus_total_relation_size(relation regclass) RETURNS bigint LANGUAGE sql AS 'SELECT pg_catalog.pg_total_relation_size(relation)';
CREATE FUNCTION pg_catalog.citus_table_size(relation regclass) RETURNS bigint LANGUAGE sql AS 'SELECT pg_catalog.pg_table_size(relation)';
CREATE FUNCTION pg_catalog.column_to_column_name(relation regclass, partkey text) RETURNS text LANGUAGE sql AS 'SELECT partkey';
CREATE FUNCTION pg_catalog.run_command_on_all_nodes(command text, OUT nodeid integer, OUT success boolean, OUT result text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
    -- A shard moves while a pass goes on, as often as this says.
    IF current_setting('test.moves', true) > '0' THEN
        UPDATE pg_catalog.pg_dist_placement SET placementid = placementid + 100;
        PERFORM set_config('test.moves', (current_setting('test.moves')::integer - 1)::text, false);
    END IF;
    nodeid := 1;
    success := true;
    EXECUTE command INTO result;
    RETURN NEXT;
END
$$;
CREATE FUNCTION pg_catalog.run_command_on_workers(command text, OUT nodename text, OUT nodeport integer, OUT success boolean, OUT result text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
    nodename := 'there';
    nodeport := 5433;
    INSERT INTO public.sent VALUES (command);
    PERFORM set_config('test.is_worker', 'on', true);
    BEGIN
        EXECUTE command INTO result;
        success := true;
    EXCEPTION WHEN OTHERS THEN
        result := SQLERRM;
        success := false;
    END;
    PERFORM set_config('test.is_worker', '', true);
    RETURN NEXT;
END
$$;
RESET allow_system_table_mods;
CREATE TABLE sent (command text);
CREATE FUNCTION distribute(relation regclass, repmodel "char", partkey text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_catalog.pg_dist_partition VALUES (relation, 'h', partkey, repmodel);
    INSERT INTO pg_catalog.pg_dist_shard VALUES (relation, relation::oid);
    INSERT INTO pg_catalog.pg_dist_placement VALUES (relation::oid, relation::oid, 0);
$$;
SELECT env_local_create_key('citus_old') IS NOT NULL AS made, env_local_create_key('citus_new') IS NOT NULL AS made;
CREATE VIEW run AS SELECT method, state, pass, rows_done, rows_left, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- The statements: over a range of blocks of several tables at once.
CREATE TABLE spread (id int, v bytea) PARTITION BY HASH (id);
CREATE TABLE spread_0 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE spread_1 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO spread SELECT i, env_encrypt('text ' || i, 'local:citus_old') FROM generate_series(1, 400) AS i;
SELECT distribute('spread', 's', 'id');
CREATE FUNCTION splices(from_block int, to_block int, OUT met bigint, OUT changed bigint) LANGUAGE plpgsql AS $$
DECLARE
    s record;
    stubs bytea[];
    counts bigint[];
    place text[] := ARRAY[format('(%s,0)', from_block)];
    next_place text[] := ARRAY[format('(%s,0)', to_block)];
BEGIN
    SELECT * INTO s FROM envelope_internal.citus_statements('spread'::regclass, '{"method": "rewrap", "column": "v", "to_key": "local:citus_new"}');
    EXECUTE s.scan_sql INTO stubs, counts USING place, next_place;
    met := (SELECT sum(n) FROM unnest(counts) AS n);
    EXECUTE s.update_sql USING place, next_place, stubs, ARRAY(SELECT env_rewrap(stub, 'local:citus_new') FROM unnest(stubs) AS stub);
    GET DIAGNOSTICS changed = ROW_COUNT;
END
$$;
SELECT met = changed AND changed > 50 AS is_some FROM splices(1, 3);
SELECT DISTINCT split_part(trim('(' FROM ctid::text), ',', 1) AS block, tableoid::regclass AS relation, env_key_id(v)
FROM spread WHERE ctid < '(4,0)' ORDER BY 1, 2, 3;
SELECT met - changed AS missed FROM splices(0, 1000);
SELECT env_key_id(v), count(*), count(*) FILTER (WHERE env_decrypt(v) = 'text ' || id) AS intact FROM spread GROUP BY 1;

-- A run.
CREATE TABLE d (id int PRIMARY KEY, "a %s'b" bytea, note text);
INSERT INTO d SELECT i, env_encrypt('text ' || i, 'local:citus_old'), 'text ' || i FROM generate_series(1, 500) AS i;
INSERT INTO d VALUES (501, NULL), (502, 'no value');
SELECT distribute('d', 's', 'id');
CREATE FUNCTION under(OUT key_id text, OUT rows bigint, OUT intact bigint) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT env_key_id("a %s'b"), count(*), count(*) FILTER (WHERE env_decrypt("a %s'b") = 'text ' || id) FROM d
    WHERE env_is_envelope("a %s'b") GROUP BY 1 ORDER BY 1
$$;
-- It pauses, and resumes.
CALL env_rotate('d', 'a %s''b', 'local:citus_new', batch_blocks => 3, max_seconds => 0);
SELECT state, pass, rows_done BETWEEN 1 AND 499 AS is_part FROM run;
CALL env_rotate('d', 'a %s''b', 'local:citus_new', batch_blocks => 3);
SELECT * FROM run;
SELECT * FROM under();
-- Sessions of all nodes are told to seal with other data keys.
SELECT DISTINCT command FROM sent ORDER BY 1;
CALL env_rotate('d', 'a %s''b', 'local:citus_old');
SELECT * FROM run;
SELECT * FROM under();
-- A shard moves in each of two passes: neither is the last one.
SET test.moves = 5;
CALL env_rotate('d', 'a %s''b', 'local:citus_new');
RESET test.moves;
SELECT * FROM run;
-- Sealed again, under data keys that were made since.
CREATE TABLE before AS SELECT DISTINCT env_dek_id("a %s'b") AS dek_id FROM d WHERE env_is_envelope("a %s'b");
CALL env_rotate('d', 'a %s''b', 'local:citus_new', 'reencrypt');
SELECT * FROM run;
SELECT * FROM under();
SELECT count(*) AS under_old_data_keys FROM d WHERE env_is_envelope("a %s'b") AND env_dek_id("a %s'b") IN (SELECT dek_id FROM before);

-- Rows that fail are failures, one by one.
ALTER TABLE d ADD CHECK (id NOT IN (77, 401) OR env_key_id("a %s'b") ~ 'new');
CALL env_rotate('d', 'a %s''b', 'local:citus_old');
\echo :SQLSTATE
SELECT * FROM run;
SELECT d.id, f.sqlstate FROM env_rotation_failure AS f JOIN d ON f.tid = d.ctid
WHERE f.run_id = (SELECT max(run_id) FROM env_rotation) ORDER BY 1;
SELECT * FROM under();
ALTER TABLE d DROP CONSTRAINT d_check;
CALL env_rotate('d', 'a %s''b', 'local:citus_old');
SELECT * FROM run;

-- Adoption: what is cleared was read back before.
CREATE TABLE people (id int PRIMARY KEY, name text, born timestamptz, name_v bytea, born_v bytea);
INSERT INTO people SELECT i, 'name ' || i, timestamptz '2001-02-03 04:05:06.789+00' + i * interval '1 day' FROM generate_series(1, 300) AS i;
CREATE TABLE people_before AS SELECT id, name, born FROM people;
SELECT distribute('people', 's', 'id');
CALL env_encrypt_column('people', 'name', 'name_v', 'local:citus_old', aad_expression => $$'people:' || id$$, clear_source => true);
SELECT * FROM run;
CALL env_encrypt_column('people', 'born', 'born_v', 'local:citus_old');
SELECT * FROM run;
SELECT count(name) AS names, count(born) AS dates, count(*) FILTER (WHERE env_decrypt(name_v, 'people:' || id) = 'name ' || id) AS intact FROM people;
UPDATE people SET born = NULL;
CALL env_decrypt_column('people', 'name_v', 'name', aad_expression => $$'people:' || id$$);
SELECT * FROM run;
CALL env_decrypt_column('people', 'born_v', 'born', clear_source => true);
SELECT * FROM run;
SELECT count(*) AS intact, count(born_v) AS dates FROM people JOIN people_before USING (id, name, born);

-- A reference table: by its primary key, and what is random is computed once.
CREATE TABLE country (code text, part int, v bytea, name text, PRIMARY KEY (code, part));
INSERT INTO country SELECT 'c''' || i, i % 3, env_encrypt('text ' || i, 'local:citus_old') FROM generate_series(1, 200) AS i;
SELECT distribute('country', 't', NULL);
CALL env_rotate('country', 'v', 'local:citus_new', batch_blocks => 70);
SELECT * FROM run;
CALL env_rotate('country', 'v', 'local:citus_new', 'reencrypt', batch_blocks => 70);
SELECT * FROM run;
CALL env_decrypt_column('country', 'v', 'name', batch_blocks => 70);
SELECT * FROM run;
SELECT count(*) FROM country WHERE name = 'text ' || substr(code, 3);
UPDATE country SET v = NULL;
CALL env_encrypt_column('country', 'name', 'v', 'local:citus_old', batch_blocks => 70, clear_source => true);
SELECT * FROM run;
SELECT count(name) AS names, count(*) FILTER (WHERE env_decrypt(v) = 'text ' || substr(code, 3)) AS intact FROM country;
ALTER TABLE country DROP CONSTRAINT country_pkey;
CALL env_rotate('country', 'v', 'local:citus_new');
\echo :SQLSTATE

-- Inventory: the name of the table, its values once, no blocks; and what the other node has of its own.
CREATE SCHEMA stock;
CREATE TABLE stock.d (id int, v bytea);
INSERT INTO stock.d SELECT i, env_encrypt('x', CASE WHEN i % 3 = 0 THEN 'local:citus_old' ELSE 'local:citus_new' END) FROM generate_series(1, 30) AS i;
INSERT INTO stock.d VALUES (31, NULL), (32, 'abc'), (33, '\xf6450155');
CREATE TABLE stock.own AS SELECT id, v FROM stock.d WHERE id < 10;
CREATE TABLE stock.d_102008 AS SELECT * FROM stock.d;
SELECT distribute('stock.d', 's', 'id');
SELECT * FROM env_inventory('stock');
SELECT relation, state, rows, detail FROM env_key_usage('local:citus_old') WHERE relation::text LIKE 'stock.%' OR detail LIKE '%stock%';
SELECT all_rows, rows_to_change, data_keys_seen BETWEEN 1 AND 3 AS some, bytes_rewritten > 0 AS is_sized, rows_tried FROM env_rotation_plan('stock.d', 'v', 'local:citus_old');
SET test.is_worker = on;
SELECT * FROM env_inventory('stock') WHERE content = 'not examined';
RESET test.is_worker;
-- What is wrong with another node is said with its name, and what differs there; a node that does not answer is not passed over.
ALTER DATABASE :"DBNAME" SET log_statement = 'all';
SELECT severity, area, finding, object LIKE 'there:5433: %' AS is_there, mend LIKE '%on there:5433' AS says_where
FROM env_check(rows => 0) WHERE finding = 'log_statement' ORDER BY object DESC;
ALTER DATABASE :"DBNAME" RESET log_statement;
SELECT severity, area, object, detail LIKE '%stock.d%' AS names_the_table FROM env_check(rows => 0) WHERE finding = 'intermediate_results';
ALTER FUNCTION envelope_internal.check_node() RENAME TO check_node_here;
CREATE FUNCTION envelope_internal.check_node() RETURNS jsonb LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT envelope_internal.check_node_here() || CASE WHEN current_setting('test.is_worker', true) = 'on'
        THEN '{"release": "0.1.0", "envelope_pg.cache_ttl": "1"}' ELSE '{}'::jsonb END
$$;
SELECT severity, area, object, detail, mend FROM env_check(rows => 0) WHERE finding = 'node_differs' ORDER BY object;
CREATE OR REPLACE FUNCTION envelope_internal.check_node() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('test.is_worker', true) = 'on' THEN RAISE 'connection refused'; END IF;
    RETURN envelope_internal.check_node_here();
END
$$;
SELECT severity, area, object, detail FROM env_check(rows => 0) WHERE finding = 'node';
DROP FUNCTION envelope_internal.check_node();
ALTER FUNCTION envelope_internal.check_node_here() RENAME TO check_node;
-- The statements of docs/guide/citus.md for all nodes.
SELECT n.nodename, n.nodeport, a.success, a.result IS NOT NULL AS answers
FROM run_command_on_all_nodes('SELECT env_cache_flush(true)') AS a JOIN pg_dist_node AS n USING (nodeid);
SELECT n.nodename, n.nodeport, a.success
FROM run_command_on_all_nodes($$SELECT env_rotate_dek('local:citus_new')$$) AS a JOIN pg_dist_node AS n USING (nodeid);
SELECT n.nodename, n.nodeport, s.source, s.operation, s.calls > 0 AS calls, s.errors
FROM run_command_on_all_nodes($$SELECT coalesce(json_agg(s), '[]') FROM env_stat_kms AS s$$) AS a JOIN pg_dist_node AS n USING (nodeid),
     json_to_recordset(a.result::json) AS s (source text, operation text, calls bigint, errors bigint) WHERE false;

-- Code of an owner does not run with the rights of whoever asks.
CREATE ROLE stock_owner;
GRANT ALL ON SCHEMA stock TO stock_owner;
CREATE FUNCTION stock.spies(bytea) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'ran'; END $$;
ALTER FUNCTION stock.spies OWNER TO stock_owner;
TRUNCATE stock.d;
CREATE INDEX ON stock.d (stock.spies(v));
ALTER TABLE stock.d OWNER TO stock_owner;
SELECT column_name, content, detail FROM env_inventory('stock') WHERE relation = 'stock.d'::regclass;
DROP SCHEMA stock CASCADE;
DROP ROLE stock_owner;

-- Refused before there is a run.
CREATE TABLE p_102008 (id int, v bytea);
CALL env_rotate('p_102008', 'v', 'local:citus_new');
\echo :SQLSTATE
CREATE ACCESS METHOD columnar TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE history (id int, v bytea) USING columnar;
SELECT distribute('history', 's', 'id');
CALL env_rotate('history', 'v', 'local:citus_new');
\echo :SQLSTATE
SET test.is_worker = on;
CALL env_rotate('d', 'a %s''b', 'local:citus_new');
\echo :SQLSTATE
RESET test.is_worker;
SELECT count(*) AS open_runs FROM env_rotation WHERE state NOT IN ('done', 'failed rows', 'abandoned');

DROP VIEW run;
DROP FUNCTION splices, under, distribute;
DROP TABLE sent, spread, d, before, people, people_before, country, p_102008, history;
DROP ACCESS METHOD columnar;
SET allow_system_table_mods = on;
DROP FUNCTION pg_catalog.citus_total_relation_size, pg_catalog.citus_table_size;
DROP FUNCTION pg_catalog.run_command_on_workers, pg_catalog.run_command_on_all_nodes, pg_catalog.shard_name, pg_catalog.citus_is_coordinator,
    pg_catalog.relation_is_a_known_shard, pg_catalog.column_to_column_name;
DROP TABLE pg_catalog.pg_dist_partition, pg_catalog.pg_dist_shard, pg_catalog.pg_dist_placement, pg_catalog.pg_dist_node;
