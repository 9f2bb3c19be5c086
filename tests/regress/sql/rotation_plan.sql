-- What a plan says of a sample, and what it refuses.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('planned');
-- One data key, so that a sample cannot miss any of it.
CREATE TABLE planned (id int, value bytea);
INSERT INTO planned SELECT i, env_encrypt('text', 'local:planned') FROM generate_series(1, 20000) AS i;
SELECT sampled_percent, all_rows BETWEEN 15000 AND 25000 AS all_rows, rows_to_change = all_rows AS all_of_them, data_keys_seen,
       data_keys, keys, kms_calls, wal_bytes > bytes_rewritten AS wal
FROM env_rotation_plan('planned', 'value', 'local:other', sample_percent => 20);
SELECT sampled_percent, all_rows, rows_to_change, data_keys, duration
FROM env_rotation_plan('planned', 'value', 'local:other', sample_percent => 100, rows_per_second => 100);
-- A data key for each value: those that a sample has missed are estimated.
SET envelope_pg.dek_max_uses = 1;
CREATE TABLE many AS SELECT env_encrypt('text', 'local:planned') AS value FROM generate_series(1, 2000);
RESET envelope_pg.dek_max_uses;
SELECT data_keys_seen BETWEEN 200 AND 1800 AS seen, data_keys BETWEEN 1500 AND 2500 AS estimated, kms_calls = data_keys AS calls
FROM env_rotation_plan('many', 'value', 'local:other', sample_percent => 50);

CREATE TABLE without_partitions (value bytea) PARTITION BY HASH (value);
SELECT sampled_percent, all_rows, rows_to_change, kms_calls, bytes_rewritten, duration
FROM env_rotation_plan('without_partitions', 'value', 'local:other');
CREATE VIEW seen AS SELECT * FROM planned;
SELECT * FROM env_rotation_plan('seen', 'value', 'local:other');
\echo :SQLSTATE
SELECT * FROM env_rotation_plan('planned', 'value', 'local:other', rows_per_second => 0);
\echo :SQLSTATE
SELECT * FROM env_rotation_plan('planned', 'value', 'local:other', sample_percent => 0);
\echo :SQLSTATE
SELECT * FROM env_rotation_plan('planned', 'value', 'local:other', sample_percent => 101);
\echo :SQLSTATE
-- Rows that a policy hides would not be counted.
CREATE ROLE regress_planner IN ROLE envelope_rotate;
GRANT SELECT ON planned TO regress_planner;
ALTER TABLE planned ENABLE ROW LEVEL SECURITY;
SET ROLE regress_planner;
SELECT * FROM env_rotation_plan('planned', 'value', 'local:other');
\echo :SQLSTATE
RESET ROLE;
DROP TABLE planned, many, without_partitions CASCADE;
DROP ROLE regress_planner;
