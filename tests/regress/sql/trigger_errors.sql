-- What env_encrypt_trigger refuses. The errors name columns and never have plaintext.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('trigger_errors');
CREATE TABLE t (
    id int, tenant text, at timestamptz, price money, letters char(3), required text NOT NULL DEFAULT 'x',
    secret text, secret_enc bytea, blob bytea, twice text GENERATED ALWAYS AS (tenant || tenant) STORED,
    "{odd}" bytea
);

-- Makes a trigger with one argument, and fires it.
CREATE PROCEDURE fire(argument text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER t_encrypt BEFORE INSERT OR UPDATE ON t FOR EACH ROW
        EXECUTE FUNCTION env_encrypt_trigger(%L)', argument);
    INSERT INTO t (id, secret) VALUES (1, 'the plaintext');
END
$$;

-- 22023: arguments
CREATE TRIGGER t_encrypt BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger();
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
CALL fire('secret');
\echo :SQLSTATE
CALL fire('{"source": "secret", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "encryption_context": {"tenant": 7}}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": null}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "id"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "{tenant}{id}"}');
\echo :SQLSTATE
-- 42703: columns by their exact names
CALL fire('{"source": "Secret", "target": "secret_enc", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "t:{ID}"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "ctid", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
-- 42804: types
CALL fire('{"source": "price", "target": "secret_enc", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "letters", "target": "letters", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "tenant", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
-- The text of a timestamp is not the same in each session.
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "t:{at}"}');
\echo :SQLSTATE
-- 42P17: columns that cannot have the part
CALL fire('{"source": "twice", "target": "secret_enc", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "t:{twice}"}');
\echo :SQLSTATE
CALL fire('{"source": "required", "target": "secret_enc", "key_id": "local:trigger_errors"}');
\echo :SQLSTATE
CALL fire('{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "t:{secret}"}');
\echo :SQLSTATE
CREATE OR REPLACE TRIGGER t_encrypt BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors"}',
    '{"source": "tenant", "target": "secret_enc", "key_id": "local:trigger_errors"}');
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
-- The second argument is at fault.
CREATE OR REPLACE TRIGGER t_encrypt BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors"}', '{}');
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP TRIGGER t_encrypt ON t;

-- 39P01: other kinds of triggers, and no trigger at all
SELECT env_encrypt_trigger();
\echo :SQLSTATE
\set argument '''{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors"}'''
CREATE TRIGGER kind AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE TRIGGER kind BEFORE INSERT OR UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION env_encrypt_trigger(:argument);
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE TRIGGER kind BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE TRIGGER kind BEFORE INSERT OR UPDATE OF secret ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP TRIGGER kind ON t;
INSERT INTO t (id) VALUES (1);
CREATE TRIGGER kind BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
UPDATE t SET secret = 'the plaintext';
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE TRIGGER kind BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
DELETE FROM t;
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE TRIGGER kind BEFORE TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION env_encrypt_trigger(:argument);
TRUNCATE t;
\echo :SQLSTATE
DROP TRIGGER kind ON t;
CREATE VIEW v AS SELECT * FROM t;
CREATE TRIGGER kind INSTEAD OF INSERT OR UPDATE ON v FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
INSERT INTO v (secret) VALUES ('the plaintext');
\echo :SQLSTATE
DROP VIEW v;
SELECT count(*) AS plaintexts FROM t WHERE secret IS NOT NULL;

-- A column that is renamed, dropped or changed after the trigger has run.
CREATE TRIGGER t_encrypt BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_errors", "aad": "t:{id}"}',
    '{"source": "blob", "target": "blob", "key_id": "local:trigger_errors"}');
INSERT INTO t (id, secret) VALUES (2, 'the plaintext');
ALTER TABLE t RENAME secret TO renamed;
INSERT INTO t (id, renamed) VALUES (3, 'the plaintext');
\echo :SQLSTATE
ALTER TABLE t RENAME renamed TO secret;
INSERT INTO t (id, secret) VALUES (3, 'the plaintext');
ALTER TABLE t ALTER blob TYPE text USING NULL;
INSERT INTO t (id, secret) VALUES (4, 'the plaintext');
\echo :SQLSTATE
ALTER TABLE t DROP blob;
UPDATE t SET tenant = 'x';
\echo :SQLSTATE
-- Another column takes over the name.
ALTER TABLE t ADD blob bytea;
INSERT INTO t (id, secret, blob) VALUES (5, 'the plaintext', 'the plaintext');
SELECT id, secret, env_decrypt(secret_enc, 't:' || id), env_decrypt_bytea(blob) = 'the plaintext' AS blob FROM t ORDER BY id;
-- In a transaction that is rolled back.
BEGIN;
ALTER TABLE t RENAME id TO number_of_row;
SAVEPOINT s;
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
ROLLBACK TO s;
ROLLBACK;
INSERT INTO t (id, secret) VALUES (6, 'the plaintext');

-- 23000, 22P03, 22004: rows
SELECT env_encrypt('the plaintext', 'local:trigger_errors', '{}', 't:5') AS value \gset
INSERT INTO t (id, secret, secret_enc) VALUES (7, 'the plaintext', :'value');
\echo :SQLSTATE
UPDATE t SET secret = 'the plaintext', secret_enc = :'value' WHERE id = 5;
\echo :SQLSTATE
INSERT INTO t (id, secret_enc) VALUES (7, 'the plaintext');
\echo :SQLSTATE
UPDATE t SET secret_enc = 'the plaintext' WHERE id = 5;
\echo :SQLSTATE
UPDATE t SET secret_enc = substr(secret_enc, 1, 60) WHERE id = 5;
\echo :SQLSTATE
UPDATE t SET secret = NULL WHERE id = 5;
\echo :SQLSTATE
UPDATE t SET secret = NULL, secret_enc = secret_enc WHERE id = 5;
UPDATE t SET id = 50 WHERE id = 5;
\echo :SQLSTATE
UPDATE t SET id = NULL WHERE id = 5;
\echo :SQLSTATE
INSERT INTO t (secret) VALUES ('the plaintext');
\echo :SQLSTATE
-- What the changed row needs: the plaintext, a value for it, or none.
UPDATE t SET id = 50, secret = 'another' WHERE id = 5;
UPDATE t SET id = 51, secret_enc = env_encrypt('one more', 'local:trigger_errors', '{}', 't:51') WHERE id = 50;
SELECT env_decrypt(secret_enc, 't:51') FROM t WHERE id = 51;
UPDATE t SET id = 52, secret_enc = NULL WHERE id = 51;
UPDATE t SET id = 53 WHERE id = 52;
-- A value that was bound by hand, in a row that has no id, does not keep other columns from being changed.
INSERT INTO t (secret_enc) VALUES (:'value');
UPDATE t SET tenant = 'y' WHERE id IS NULL;
UPDATE t SET id = 5 WHERE id IS NULL;
\echo :SQLSTATE
DELETE FROM t WHERE id IS NULL;
-- A conflict in another column than that of the aad: EXCLUDED is of a row that was not inserted.
ALTER TABLE t ADD UNIQUE (tenant);
UPDATE t SET tenant = id;
INSERT INTO t (id, tenant, secret) VALUES (60, '6', 'upsert') ON CONFLICT (tenant) DO UPDATE SET secret_enc = EXCLUDED.secret_enc;
\echo :SQLSTATE
INSERT INTO t (id, tenant, secret) VALUES (60, '6', 'upsert') ON CONFLICT (tenant) DO UPDATE SET secret_enc = EXCLUDED.secret_enc, id = EXCLUDED.id;
SELECT env_decrypt(secret_enc, 't:60') FROM t WHERE id = 60;

-- A domain that lets in no null, and one that lets in no encrypted value.
\set VERBOSITY terse
CREATE DOMAIN present AS text NOT NULL;
CREATE DOMAIN short AS bytea CHECK (octet_length(VALUE) < 50);
CREATE TABLE d (plain present, plain_enc bytea, blob short);
CREATE TRIGGER d_encrypt BEFORE INSERT OR UPDATE ON d FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "plain", "target": "plain_enc", "key_id": "local:trigger_errors"}');
INSERT INTO d VALUES ('the plaintext');
\echo :SQLSTATE
CREATE OR REPLACE TRIGGER d_encrypt BEFORE INSERT OR UPDATE ON d FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "blob", "target": "blob", "key_id": "local:trigger_errors"}');
INSERT INTO d VALUES ('', NULL, 'the plaintext');
\echo :SQLSTATE

\set VERBOSITY default

-- Errors of the key come through.
CREATE OR REPLACE TRIGGER d_encrypt BEFORE INSERT OR UPDATE ON d FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "blob", "target": "blob", "key_id": "local:no_such_key"}');
INSERT INTO d VALUES ('', NULL, 'the plaintext');
\echo :SQLSTATE

-- Who may make a trigger, and whose key it uses.
CREATE ROLE regress_trigger_owner;
CREATE ROLE regress_trigger_writer LOGIN;
CREATE TABLE owned (id int, secret text, secret_enc bytea);
ALTER TABLE owned OWNER TO regress_trigger_owner;
GRANT INSERT, SELECT ON owned TO regress_trigger_writer;
SET ROLE regress_trigger_owner;
CREATE TRIGGER owned_encrypt BEFORE INSERT OR UPDATE ON owned FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
\echo :SQLSTATE
RESET ROLE;
GRANT envelope_encrypt TO regress_trigger_owner;
SET ROLE regress_trigger_owner;
CREATE TRIGGER owned_encrypt BEFORE INSERT OR UPDATE ON owned FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(:argument);
-- The writer needs no grant on the function; allowed_keys is what holds.
SET ROLE regress_trigger_writer;
INSERT INTO owned VALUES (1, 'the plaintext');
SELECT env_encrypt('x', 'local:trigger_errors');
\echo :SQLSTATE
RESET ROLE;
ALTER ROLE regress_trigger_writer SET envelope_pg.allowed_keys = 'local:another';
\c - regress_trigger_writer
INSERT INTO owned VALUES (2, 'the plaintext');
\echo :SQLSTATE
\c - postgres
SELECT id, secret, env_decrypt(secret_enc) FROM owned;

SET client_min_messages = warning;
DROP TABLE t, d, owned;
DROP PROCEDURE fire;
DROP DOMAIN present, short;
DROP ROLE regress_trigger_owner, regress_trigger_writer;
