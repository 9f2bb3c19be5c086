-- A run is done if no row is left and none failed; what fails for each row is refused before there is a run; and one row never
-- keeps the others from being done.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('done_old'), env_local_create_key('done_new');
CREATE TABLE done (id int PRIMARY KEY, env_source text, env_tid text, env_row text, plain text, short varchar(5), value bytea, bound bytea);
INSERT INTO done SELECT i, 'web', 'a', 'b', 'text ' || i, NULL, env_encrypt('v' || i, 'local:done_old'),
    env_encrypt('b' || i, 'local:done_old', '{}', 'done:' || i) FROM generate_series(1, 20) AS i;

-- A trigger that refuses each row, as an optimistic lock does; one that puts the old value back; a rule.
CREATE FUNCTION stale() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stale'; END $$;
CREATE TRIGGER t BEFORE UPDATE ON done FOR EACH ROW EXECUTE FUNCTION stale();
CALL env_rotate('done', 'value', 'local:done_new');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation;
SELECT sum(row_count) FROM env_rotation_failure WHERE run_id = 1;
CREATE OR REPLACE FUNCTION stale() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.value := OLD.value; RETURN NEW; END $$;
CALL env_rotate('done', 'value', 'local:done_new');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation;
DROP TRIGGER t ON done;
CREATE RULE r AS ON UPDATE TO done DO ALSO SELECT 1;
CALL env_rotate('done', 'value', 'local:done_new');
\echo :SQLSTATE
DROP RULE r ON done;
ALTER TABLE done ADD CHECK (env_is_envelope(value, 'local:done_old'));
CALL env_rotate('done', 'value', 'local:done_new');
\echo :SQLSTATE
ALTER TABLE done DROP CONSTRAINT done_value_check;
-- The cause is mended: the same run goes on.
CALL env_rotate('done', 'value', 'local:done_new');
SELECT run_id, state, rows_done, failures FROM env_rotation;

-- More failures than are listed are counted all the same.
CREATE TABLE many (value bytea);
INSERT INTO many SELECT set_byte(v, octet_length(v) - 1, get_byte(v, octet_length(v) - 1) # 1)
FROM (SELECT env_encrypt('x', 'local:done_old') AS v FROM generate_series(1, 1200)) AS s;
CALL env_rotate('many', 'value', 'local:done_new', 'reencrypt');
\echo :SQLSTATE
SELECT r.failures, sum(f.row_count), count(*) FROM env_rotation AS r JOIN env_rotation_failure AS f USING (run_id)
WHERE r.relation = 'many' GROUP BY 1;

-- Refused, and no run is left: a wrong aad_expression, one that opens nothing, none where there is one, and the other way round.
CALL env_rotate('done', 'bound', 'local:done_new', 'reencrypt', aad_expression => $$'done:' || idd$$);
\echo :SQLSTATE
CALL env_rotate('done', 'bound', 'local:done_new', 'reencrypt', aad_expression => $$'other:' || id$$);
\echo :SQLSTATE
CALL env_rotate('done', 'bound', 'local:done_new', 'reencrypt');
\echo :SQLSTATE
CALL env_rotate('done', 'value', 'local:done_new', 'reencrypt', aad_column => 'id');
\echo :SQLSTATE
-- By rewrap to a key of another provider.
CALL env_rotate('done', 'value', 'arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555');
\echo :SQLSTATE
-- A null where a restriction was meant.
SELECT rows_to_change FROM env_rotation_plan('done', 'value', 'local:done_old', from_key => NULL);
CALL env_rotate('done', NULL, 'local:done_old');
CALL env_encrypt_column('done', NULL, 'value', 'local:done_old');
CALL env_rotate('done', 'value', 'local:done_old', from_key => NULL);
\echo :SQLSTATE
CALL env_rotate('done', 'value', 'local:done_old', from_dek => NULL);
\echo :SQLSTATE
CALL env_rotate('done', 'bound', 'local:done_new', 'reencrypt', aad_expression => NULL);
\echo :SQLSTATE
CALL env_encrypt_column('done', 'plain', 'value', 'local:done_old', aad_column => NULL);
\echo :SQLSTATE
CALL env_decrypt_column('done', 'value', 'plain', aad_expression => NULL);
\echo :SQLSTATE
-- A key that is not there.
CALL env_rotate('done', 'bound', 'local:done_missing', 'reencrypt', aad_expression => $$'done:' || id$$);
\echo :SQLSTATE
SELECT count(*) FROM env_rotation WHERE relation = 'done';
CALL env_rotate('done', 'bound', 'local:done_new', 'reencrypt', aad_expression => $$'done:' || id$$);
SELECT env_key_id(bound), count(env_decrypt(bound, 'done:' || id)) FROM done GROUP BY 1;

-- Columns that are called as our own are.
ALTER TABLE done ADD sealed bytea;
CALL env_encrypt_column('done', 'plain', 'sealed', 'local:done_new', aad_expression => $$env_source || env_tid || env_row || id$$);
SELECT count(*) FROM done WHERE env_decrypt(sealed, env_source || env_tid || env_row || id) = plain;

-- One row: a null aad, a plaintext that does not fit, blanks that a varchar would lose, a deferred constraint.
UPDATE done SET sealed = NULL, env_tid = CASE id WHEN 3 THEN NULL ELSE 'c' END;
CALL env_encrypt_column('done', 'plain', 'sealed', 'local:done_new', aad_column => 'env_tid');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT sqlstate, message FROM env_rotation_failure ORDER BY failure_id DESC LIMIT 1;
UPDATE done SET value = env_encrypt(CASE id WHEN 4 THEN 'ab      ' WHEN 5 THEN 'abcdefgh' ELSE 'v' || id END, 'local:done_new');
CALL env_decrypt_column('done', 'value', 'short');
\echo :SQLSTATE
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT count(short), min(id) FILTER (WHERE short IS NULL), max(id) FILTER (WHERE short IS NULL) FROM done;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 6 THEN RAISE 'not this one'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON done DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
CALL env_rotate('done', 'value', 'local:done_old');
\echo :SQLSTATE
SELECT env_key_id(value), count(*), min(id) FROM done GROUP BY 1 ORDER BY 1;

-- A window: it ends cleanly, and the same CALL goes on.
DROP TRIGGER late ON done;
CREATE TABLE slow AS SELECT i AS id, env_encrypt('x', 'local:done_old') AS value FROM generate_series(1, 2000) AS i;
CALL env_rotate('slow', 'value', 'local:done_new', max_seconds => 0.2, max_rows_per_second => 500, batch_blocks => 1);
SELECT state, rows_done BETWEEN 1 AND 1999 AS some FROM env_rotation WHERE relation = 'slow';
CALL env_rotate('slow', 'value', 'local:done_new', until => clock_timestamp() - interval '1 s');
CALL env_rotate('slow', 'value', 'local:done_new', max_lag_seconds => 10);
SELECT state, rows_done FROM env_rotation WHERE relation = 'slow';

-- The wrapped keys of one value for another.
SELECT env_splice(a.v, env_rewrap(b.v, 'local:done_new')) AS spliced, a.v AS value
FROM (SELECT env_encrypt('a', 'local:done_old')) AS a (v), (SELECT env_encrypt('b', 'local:done_old')) AS b (v) \gset
SELECT env_decrypt(:'spliced'), env_key_id(:'spliced'), env_splice(:'spliced', env_dek_stub(:'value')) = :'value' AS and_back;
SELECT env_splice(:'value', env_encrypt('a', 'local:done_new'));
\echo :SQLSTATE
SELECT env_splice(:'value', '\x00');
\echo :SQLSTATE
SELECT env_splice(:'value', NULL), env_splice(NULL, :'value');
DROP TABLE done, many, slow;
DROP FUNCTION stale, late;
