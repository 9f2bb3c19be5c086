-- Progress that a member of envelope_rotate writes himself: he reaches no runs of columns that he may not update, and those of
-- others not beyond their table.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('forged_old'), env_local_create_key('forged_new');
CREATE TABLE forged (id int, value bytea);
ALTER TABLE forged ALTER value SET STORAGE PLAIN;
INSERT INTO forged SELECT i, env_encrypt(repeat('x', 3000), 'local:forged_old') FROM generate_series(1, 20) AS i;
CREATE ROLE regress_rotator IN ROLE envelope_rotate, envelope_encrypt;
CREATE SCHEMA trap AUTHORIZATION regress_rotator;
-- After one pass the run of the superuser is not finished.
CALL env_rotate('forged', 'value', 'local:forged_new', max_passes => 1);
INSERT INTO forged SELECT i, env_encrypt(repeat('x', 3000), 'local:forged_old') FROM generate_series(21, 40) AS i;

SET ROLE regress_rotator;
CREATE TABLE trap.trap (id int, value bytea);
CREATE FUNCTION trap.spring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'it was sprung by %', current_user;
END
$$;
CREATE TRIGGER spring BEFORE UPDATE ON trap.trap FOR EACH ROW EXECUTE FUNCTION trap.spring();
RESET ROLE;
INSERT INTO trap.trap SELECT i, env_encrypt('text', 'local:forged_old') FROM generate_series(1, 10) AS i;
SELECT 'trap.trap'::regclass::oid AS trap, run_id AS run FROM env_rotation WHERE state = 'interrupted' \gset

-- Without a right on the table: all can be seen, and nothing written.
SET ROLE regress_rotator;
SELECT count(*) FROM envelope_internal.rotation_run;
UPDATE envelope_internal.rotation_run SET leaf = :trap, leaf_blocks = 1, next_block = 0 RETURNING run_id;
UPDATE envelope_internal.rotation_run SET relation = :trap;
\echo :SQLSTATE
UPDATE envelope_internal.rotation_run SET parameters = '{}';
\echo :SQLSTATE
INSERT INTO envelope_internal.rotation_run (relation, column_number, relation_name, column_name, method, parameters, lock_key)
SELECT relation, 1, relation_name, 'id', method, parameters, lock_key FROM envelope_internal.rotation_run;
\echo :SQLSTATE
INSERT INTO envelope_internal.rotation_dek (run_id, dek_id, key_id, is_new) VALUES (:run, '\x00', 'local:forged_old', true);
\echo :SQLSTATE
INSERT INTO envelope_internal.rotation_failure (run_id, relation, row_count, sqlstate, message) VALUES (:run, 0, 1, '22000', 'forged');
\echo :SQLSTATE
SELECT env_rotation_abandon(:run);
\echo :SQLSTATE
RESET ROLE;

-- With the right to update it he can give it up, and not say how far it has come or which data keys are its own.
GRANT SELECT, UPDATE ON forged TO regress_rotator;
SET ROLE regress_rotator;
-- The lock of a run is not of his choice: one that he holds elsewhere would keep the run from being given up.
INSERT INTO envelope_internal.rotation_run (relation, column_number, relation_name, column_name, method, parameters, lock_key)
SELECT relation, 1, relation_name, 'id', method, parameters, 42 FROM envelope_internal.rotation_run;
\echo :SQLSTATE
UPDATE envelope_internal.rotation_run SET leaf = :trap, leaf_blocks = 1, next_block = 0;
\echo :SQLSTATE
INSERT INTO envelope_internal.rotation_dek (run_id, dek_id, key_id, is_new) VALUES (:run, '\x00', 'local:forged_old', true);
\echo :SQLSTATE
INSERT INTO envelope_internal.rotation_failure (run_id, relation, row_count, sqlstate, message) VALUES (:run, 0, 1, '22000', 'forged');
\echo :SQLSTATE
RESET ROLE;
-- Whatever the record says, the run goes nowhere else, and is done when it has looked.
UPDATE envelope_internal.rotation_run SET leaf = :trap, leaf_blocks = 1, next_block = 0 WHERE run_id = :run;
CALL env_rotate('forged', 'value', 'local:forged_new');
SELECT state, failures FROM env_rotation WHERE run_id = :run;
SELECT env_key_id(value), count(*) FROM forged GROUP BY 1;
SELECT env_key_id(value), count(*) FROM trap.trap GROUP BY 1;

-- A record that says that all was seen and nothing is left; of the superuser's own run, and of one of the member's.
INSERT INTO forged SELECT i, env_encrypt(repeat('x', 3000), 'local:forged_old') FROM generate_series(50, 70) AS i;
CALL env_rotate('forged', 'value', 'local:forged_new', max_passes => 1);
SELECT max(run_id) AS run FROM env_rotation \gset
UPDATE forged SET value = env_encrypt('text', 'local:forged_old');
UPDATE envelope_internal.rotation_run SET pass = 7, leaf = 'forged'::regclass, leaf_blocks = 100, next_block = 100, blocks_done = 100,
    pass_changed = 0, pass_left = 0 WHERE run_id = :run;
CALL env_rotate('forged', 'value', 'local:forged_new');
SELECT run_id = :run AS resumed, state, env_key_id(value), count(*) FROM env_rotation, forged WHERE run_id = :run GROUP BY 1, 2, 3;
UPDATE forged SET value = env_encrypt('text', 'local:forged_old');
SET ROLE regress_rotator;
CALL env_rotate('forged', 'value', 'local:forged_new', max_passes => 1);
SELECT max(run_id) AS run FROM env_rotation \gset
UPDATE envelope_internal.rotation_run SET pass = 7, leaf = 'forged'::regclass, leaf_blocks = 100, next_block = 100, blocks_done = 100,
    pass_changed = 0, pass_left = 0 WHERE run_id = :run;
RESET ROLE;
UPDATE forged SET value = env_encrypt('text', 'local:forged_old');
CALL env_rotate('forged', 'value', 'local:forged_new', max_seconds => 100);
SELECT state FROM env_rotation WHERE run_id = :run;
SELECT state, rows_done, env_key_id(value), count(*) FROM env_rotation, forged WHERE run_id > :run GROUP BY 1, 2, 3;
-- That a reencrypting run had sealed with the data key of all values, and is past its first pass.
UPDATE forged SET value = env_encrypt('text', 'local:forged_new');
SET ROLE regress_rotator;
CALL env_rotate('forged', 'value', 'local:forged_new', 'reencrypt', max_passes => 1);
RESET ROLE;
CALL env_rotate('forged', 'value', 'local:forged_new', 'reencrypt');
SELECT max(run_id) AS run FROM env_rotation \gset
SELECT state, rows_done = (SELECT count(*) FROM forged) AS all_rows FROM env_rotation WHERE run_id = :run;

-- What he gave his run is neither shown nor asked for: it would run as the superuser.
SET ROLE regress_rotator;
UPDATE forged SET value = env_encrypt('text', 'local:forged_old', '{}', id::text);
CALL env_rotate('forged', 'value', 'local:forged_new', 'reencrypt', aad_expression => 'CAST(id AS text)', max_passes => 1);
RESET ROLE;
CALL env_rotate('forged', 'value', 'local:forged_new', 'reencrypt', aad_column => 'id');
SELECT env_rotation_abandon(max(run_id)) FROM env_rotation;
UPDATE forged SET value = env_encrypt('text', 'local:forged_new');

-- Nor does his own run work for that of another table.
INSERT INTO forged SELECT 41, env_encrypt('text', 'local:forged_old');
CALL env_rotate('forged', 'value', 'local:forged_new', max_passes => 1);
SELECT max(run_id) AS run FROM env_rotation \gset
CALL envelope_internal.rotation_loop(:run, format('{"relation": %s, "column": "value", "method": "rewrap", "to_key": "local:forged_new", "max_passes": 2}', :trap)::jsonb);
\echo :SQLSTATE
SELECT env_rotation_abandon(:run);

SET client_min_messages = error;
DROP SCHEMA trap CASCADE;
DROP TABLE forged;
DROP ROLE regress_rotator;
