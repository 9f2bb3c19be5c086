-- When a run will end, as its first tenth tells it. What batches took is what their record is told, so no machine is too slow for this.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('eta_old') IS NOT NULL AS made, env_local_create_key('eta_new') IS NOT NULL AS made;
CREATE TABLE foreseen (id int PRIMARY KEY, value bytea);
INSERT INTO foreseen SELECT i, env_encrypt('text ' || i, 'local:eta_old') FROM generate_series(1, 200) AS i;
CALL env_rotate('foreseen', 'value', 'local:eta_new', max_seconds => 0);
CREATE VIEW run AS SELECT * FROM envelope_internal.rotation_run ORDER BY run_id DESC LIMIT 1;
CREATE FUNCTION batch(size bigint, took double precision, p jsonb DEFAULT '{}') RETURNS double precision LANGUAGE sql AS $$
    SELECT round(o.pause) FROM run AS r, envelope_internal.rotation_record(r.run_id, p, clock_timestamp(), r.next_block, r.next_block + size,
        100, 0, 0, 0, '{}', 0, clock_timestamp(), clock_timestamp() - make_interval(secs => took)) AS o
$$;
-- A record takes some milliseconds itself.
CREATE FUNCTION foresees(seconds double precision, OUT pass int, OUT pass_percent numeric, OUT phase text, OUT is_foreseen boolean) LANGUAGE sql AS $$
    SELECT r.pass, r.pass_percent, r.phase, extract(epoch FROM r.eta - r.updated) BETWEEN $1 - 0.5 AND $1 * 1.1
    FROM env_rotation AS r ORDER BY r.run_id DESC LIMIT 1
$$;
-- As if it were running, in a table of 5,000 blocks.
SELECT envelope_internal.rotation_lock(lock_key) FROM run;
UPDATE envelope_internal.rotation_run SET pass = 1, leaf_blocks = 5000, blocks_total = 5000, blocks_done = 0, next_block = 0,
    pass_changed = 0, pass_seconds = 0, pass_blocks = 0 WHERE run_id = (SELECT run_id FROM run);
SELECT * FROM foresees(NULL);
-- 100 blocks a second, behind batches that were small and slow, as plans are made and KMS is asked in the first ones: 45 s are left
-- of this pass, and the last one takes 4 s.
SELECT batch(1, 5), batch(8, 1), batch(64, 1);
SELECT batch(427, 4.27);
SELECT * FROM foresees(49);
SELECT batch(500, 5), batch(500, 5), batch(500, 5);
SELECT * FROM foresees(34);
-- Half as fast from here on, by what was so far, too.
SELECT batch(1000, 20);
SELECT * FROM foresees(32.3);
-- A pause of 10 s behind 100 rows counts.
UPDATE envelope_internal.rotation_run SET blocks_done = 0, next_block = 0, pass_changed = 0, pass_seconds = 0, pass_blocks = 0
WHERE run_id = (SELECT run_id FROM run);
SELECT batch(50, 0, '{"max_rows_per_second": 10}');
SELECT * FROM foresees(1070);
-- The last pass has none behind it.
UPDATE envelope_internal.rotation_run SET pass = 2, blocks_done = 0, next_block = 0, pass_changed = 0, pass_seconds = 4, pass_blocks = 500
WHERE run_id = (SELECT run_id FROM run);
SELECT * FROM foresees(40);
SELECT envelope_internal.rotation_unlock(lock_key) FROM run;
SELECT env_rotation_abandon(run_id) FROM run;
DROP VIEW run CASCADE;
DROP FUNCTION foresees(double precision);
DROP TABLE foreseen;
