-- Named keys: foreign servers of the wrapper envelope_pg, and who may use them.
\set SHOW_CONTEXT never
\set VERBOSITY default
SET client_min_messages = warning;
SELECT env_local_create_key('nk1'), env_local_create_key('nk2'), env_local_create_key('nk_free');

-- What a name can say.
CREATE SERVER nk FOREIGN DATA WRAPPER envelope_pg;
CREATE SERVER nk FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'alias/x');
CREATE SERVER nk FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk1', key 'x');
CREATE SERVER nk FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk1', operations 'all');
CREATE SERVER nk FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk1', encryption_context '[]');
CREATE SERVER "nk Ключ" FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk1', encryption_context '{"table": "patient"}');
CREATE USER MAPPING FOR CURRENT_USER SERVER "nk Ключ";
CREATE FOREIGN TABLE nk_table (a int) SERVER "nk Ключ";

-- A value under a name: its key, its context, and what the statement adds to it.
SELECT env_key_id(v), env_encryption_context(v), env_decrypt(v) FROM env_encrypt('x', 'key:nk Ключ') AS v;
SELECT env_encryption_context(env_encrypt('x', 'key:nk Ключ', '{"tenant": "7"}'));
SELECT env_encrypt('x', 'key:nk Ключ', '{"table": "other"}');
SELECT env_encrypt('x', 'key:nobody');
SELECT env_encrypt('x', 'key:');

-- Roles. A key that is named needs USAGE, however the statement names it; one that is not named does not.
CREATE ROLE nk_writer; CREATE ROLE nk_reader; CREATE ROLE nk_group; CREATE ROLE nk_stranger;
GRANT envelope_encrypt TO nk_writer, nk_stranger; GRANT envelope_decrypt TO nk_reader, nk_stranger, nk_writer;
CREATE SERVER nk_w FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk2', operations 'encrypt');
CREATE SERVER nk_r FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:nk2', operations 'decrypt');
GRANT USAGE ON FOREIGN SERVER nk_w TO nk_writer;
GRANT USAGE ON FOREIGN SERVER nk_r TO nk_group;
GRANT nk_group TO nk_reader;
CREATE TABLE nk_value (id int, v bytea);
GRANT SELECT, INSERT ON nk_value TO nk_writer, nk_reader, nk_stranger;
SET ROLE nk_writer;
INSERT INTO nk_value VALUES (1, env_encrypt('by name', 'key:nk_w')), (2, env_encrypt('by id', 'local:nk2'));
SELECT env_decrypt(v) FROM nk_value;
RESET ROLE; SET ROLE nk_reader;
SELECT id, env_decrypt(v) FROM nk_value ORDER BY id;
RESET ROLE; SET ROLE nk_stranger;
SELECT env_decrypt(v) FROM nk_value;
SELECT env_encrypt('x', 'local:nk2');
SELECT env_encrypt('x', 'key:nk_w');
SELECT env_decrypt(env_encrypt('free', 'local:nk_free'));
RESET ROLE;

-- Cached or not, a change counts at once: grants, memberships, options, the name.
PREPARE nk_read AS SELECT id, env_decrypt(v) FROM nk_value ORDER BY id;
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
REVOKE nk_group FROM nk_reader;
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
GRANT USAGE ON FOREIGN SERVER nk_r TO nk_reader;
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
ALTER SERVER nk_r OPTIONS (SET key_id 'local:nk1');
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
ALTER SERVER nk_r OPTIONS (ADD old_key_ids 'local:nk2');
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
ALTER SERVER nk_r RENAME TO nk_r2;
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER nk_r2 FROM nk_reader;
SET ROLE nk_reader; EXECUTE nk_read; RESET ROLE;

-- current_user counts: a SECURITY DEFINER function lends its owner's right, and a cursor does not keep a right that is gone.
GRANT USAGE ON FOREIGN SERVER nk_r2 TO nk_group; GRANT nk_group TO nk_reader;
GRANT CREATE ON SCHEMA public TO nk_reader;
SET ROLE nk_reader;
CREATE FUNCTION nk_lend(v bytea) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'SELECT env_decrypt(v)';
RESET ROLE; SET ROLE nk_stranger;
SELECT nk_lend(v) FROM nk_value ORDER BY id;
SELECT nk_lend(v), env_decrypt(v) FROM nk_value ORDER BY id;
RESET ROLE;
GRANT nk_stranger TO nk_reader;
BEGIN;
SET LOCAL ROLE nk_reader;
DECLARE nk_cursor CURSOR FOR SELECT env_decrypt(v) FROM nk_value ORDER BY id;
FETCH nk_cursor;
RESET ROLE;
REVOKE nk_group FROM nk_reader;
SET LOCAL ROLE nk_reader;
FETCH nk_cursor;
ROLLBACK;

-- A trigger.
CREATE TABLE nk_person (id int, ssn text, ssn_enc bytea);
CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON nk_person FOR EACH ROW
    EXECUTE FUNCTION env_encrypt_trigger('{"source": "ssn", "target": "ssn_enc", "key_id": "key:nk_w"}');
GRANT INSERT ON nk_person TO nk_writer, nk_stranger;
SET ROLE nk_writer; INSERT INTO nk_person (id, ssn) VALUES (1, '078'); RESET ROLE;
SET ROLE nk_stranger; INSERT INTO nk_person (id, ssn) VALUES (2, '079'); RESET ROLE;
SELECT id, env_decrypt(ssn_enc) FROM nk_person;

-- Another key behind the name: new values take it, and a rotation moves the old ones.
ALTER SERVER nk_w OPTIONS (SET key_id 'local:nk1', ADD old_key_ids 'local:nk2');
SELECT env_key_id(env_encrypt('new', 'key:nk_w'));
CALL env_rotate('nk_value', 'v', 'key:nk_w');
SELECT id, env_key_id(v), env_decrypt(v) FROM nk_value ORDER BY id;

-- Only named keys.
SET envelope_pg.require_named_keys = on;
SELECT env_decrypt(env_encrypt('superuser', 'local:nk_free'));
SET ROLE nk_stranger;
SELECT env_encrypt('x', 'local:nk_free');
SET envelope_pg.require_named_keys = off;
RESET ROLE;
RESET envelope_pg.require_named_keys;

DROP TABLE nk_value, nk_person;
DROP FUNCTION nk_lend;
DROP SERVER "nk Ключ" CASCADE;
DROP SERVER nk_w; DROP SERVER nk_r2;
DROP OWNED BY nk_writer, nk_reader, nk_group, nk_stranger;
DROP ROLE nk_writer, nk_reader, nk_group, nk_stranger;
