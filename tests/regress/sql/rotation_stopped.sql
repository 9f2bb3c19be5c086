-- What is wrong with a table, a right or a key, and not with a row: the CALL ends with that, and the run is resumed when it is
-- mended.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('stopped_old'), env_local_create_key('stopped_other');
CREATE TABLE stopped (id int PRIMARY KEY, plain text, value bytea);
INSERT INTO stopped SELECT i, 'text ' || i, env_encrypt('text ' || i, 'local:stopped_old') FROM generate_series(1, 100) AS i;

-- A published table that has no replica identity cannot be updated.
ALTER TABLE stopped REPLICA IDENTITY NOTHING;
SET client_min_messages = error;
CREATE PUBLICATION stopped_publication FOR TABLE stopped;
SET client_min_messages = warning;
CALL env_rotate('stopped', 'value', 'local:stopped_other');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
DROP PUBLICATION stopped_publication;
CALL env_rotate('stopped', 'value', 'local:stopped_other');
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- A right that is missing is said before there is a run.
CREATE ROLE regress_adopter IN ROLE envelope_rotate, envelope_encrypt, envelope_decrypt;
GRANT SELECT, UPDATE (value) ON stopped TO regress_adopter;
SET ROLE regress_adopter;
CALL env_encrypt_column('stopped', 'plain', 'value', 'local:stopped_other', clear_source => true);
\echo :SQLSTATE
CALL env_encrypt_column('stopped', 'plain', 'value', 'local:stopped_other');
RESET ROLE;
SELECT run_id, state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
DROP OWNED BY regress_adopter;
DROP ROLE regress_adopter;

-- So is a key that may not be used.
SET envelope_pg.allowed_keys = 'local:stopped_other';
CALL env_rotate('stopped', 'value', 'local:stopped_old');
\echo :SQLSTATE
CALL env_rotate('stopped', 'value', 'local:stopped_old', 'reencrypt');
\echo :SQLSTATE
CALL env_encrypt_column('stopped', 'plain', 'value', 'local:stopped_old');
\echo :SQLSTATE
RESET envelope_pg.allowed_keys;
SELECT max(run_id) AS last_run FROM env_rotation;

-- A key that is not there is found out when it is asked: it refuses all data keys.
CALL env_rotate('stopped', 'value', 'local:stopped_new');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT env_local_create_key('stopped_new');
CALL env_rotate('stopped', 'value', 'local:stopped_new');
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
CALL env_rotate('stopped', 'value', 'local:stopped_newer', 'reencrypt');
\echo :SQLSTATE
SELECT env_local_create_key('stopped_newer');
CALL env_rotate('stopped', 'value', 'local:stopped_newer', 'reencrypt');
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT env_key_id(value), count(*) FROM stopped WHERE env_decrypt(value) = plain GROUP BY 1;

-- Too many failures: they are listed, and when their cause is gone none of their rows is left out, not even if there is nothing
-- else to do.
ALTER TABLE stopped ADD CONSTRAINT only_newer CHECK (env_key_id(value) = 'local:stopped_newer') NOT VALID;
\set VERBOSITY sqlstate
CALL env_rotate('stopped', 'value', 'local:stopped_old', max_failures => 10, batch_blocks => 1);
\set VERBOSITY default
SELECT r.state, r.failures > 10 AS counted, count(*) = r.failures AS listed, count(DISTINCT f.sqlstate) AS sqlstates
FROM env_rotation AS r JOIN env_rotation_failure AS f USING (run_id) GROUP BY r.run_id, r.state, r.failures
ORDER BY r.run_id DESC LIMIT 1;
ALTER TABLE stopped DROP CONSTRAINT only_newer;
CALL env_rotate('stopped', 'value', 'local:stopped_old', max_failures => 10, batch_blocks => 1);
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT env_key_id(value), count(*) FROM stopped WHERE env_decrypt(value) = plain GROUP BY 1;
DROP TABLE stopped;
