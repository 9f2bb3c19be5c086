-- Values whose key may not be used: they are left alone and counted, and the run does the rest.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('may'), env_local_create_key('may_not');
CREATE TABLE refused (id int PRIMARY KEY, plain text, value bytea);
INSERT INTO refused SELECT i, 'text ' || i, CASE WHEN i <= 10 THEN env_encrypt('old', 'local:may_not') END FROM generate_series(1, 60) AS i;
-- One that cannot be unwrapped, whatever is allowed.
UPDATE refused SET value = (SELECT set_byte(v, 100, get_byte(v, 100) # 1) FROM env_encrypt('text 11', 'local:may') AS v) WHERE id = 11;
-- Those that have no plaintext are none of the run's business.
INSERT INTO refused VALUES (61, NULL, env_encrypt('text 61', 'local:may_not')), (62, NULL, '\x00');
SET envelope_pg.allowed_keys = 'local:may';
CALL env_encrypt_column('refused', 'plain', 'value', 'local:may');
SELECT state, rows_done, rows_left, failures, not_envelopes FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT tid, row_count, sqlstate, message FROM env_rotation_failure ORDER BY sqlstate;
SELECT env_key_id(value), count(*), min(id), max(id) FROM refused WHERE plain IS NOT NULL GROUP BY 1 ORDER BY 1;
-- Nor is a plaintext cleared that may be the only one.
CALL env_encrypt_column('refused', 'plain', 'value', 'local:may', clear_source => true);
SELECT state, rows_done, rows_left, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT count(*), min(id), max(id) FROM refused WHERE plain IS NOT NULL;
-- When it may be used again, the plaintext wins.
RESET envelope_pg.allowed_keys;
UPDATE refused SET value = NULL WHERE id = 11;
CALL env_encrypt_column('refused', 'plain', 'value', 'local:may', clear_source => true);
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT count(*) FROM refused WHERE id <= 60 AND env_decrypt(value) = 'text ' || id AND plain IS NULL;

-- And back.
UPDATE refused SET value = env_encrypt('text ' || id, 'local:may_not') WHERE id <= 10;
SET envelope_pg.allowed_keys = 'local:may';
CALL env_decrypt_column('refused', 'value', 'plain');
SELECT state, rows_done, rows_left, failures, not_envelopes FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT tid, row_count, sqlstate FROM env_rotation_failure AS f WHERE run_id = (SELECT max(run_id) FROM env_rotation);
SELECT count(*), min(id), max(id) FROM refused WHERE plain = 'text ' || id;
RESET envelope_pg.allowed_keys;
DROP TABLE refused;
