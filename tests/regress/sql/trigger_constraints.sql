-- A constraint that compares the source of a trigger sees nulls, or ciphertext, ever after: refused with 42P17.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('constraints');
CREATE TABLE parent (email text PRIMARY KEY);
CREATE PROCEDURE try(definition text, source text, target text DEFAULT 'enc') LANGUAGE plpgsql AS $$
DECLARE
    hint text;
    at_place text;
BEGIN
    EXECUTE definition;
    EXECUTE format('CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(%L)',
                   jsonb_build_object('source', source, 'target', target, 'key_id', 'local:constraints'));
    INSERT INTO u DEFAULT VALUES;
    RAISE WARNING 'not refused: %', definition;
    DROP TABLE u;
EXCEPTION
    WHEN invalid_object_definition THEN
        GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT, at_place = PG_EXCEPTION_DETAIL;
        RAISE WARNING '%', SQLERRM;
END
$$;
CALL try('CREATE TABLE u (id int, email text UNIQUE, enc bytea)', 'email');
CALL try('CREATE TABLE u (id int, email text, enc bytea, CONSTRAINT "два" UNIQUE (id, email))', 'email');
CALL try('CREATE TABLE u (id int, email text, enc bytea); CREATE UNIQUE INDEX by_expression ON u (lower(email))', 'email');
CALL try('CREATE TABLE u (id int, email text, enc bytea); CREATE UNIQUE INDEX partial ON u (id) WHERE email IS NOT NULL', 'email');
CALL try('CREATE TABLE u (id int, email text REFERENCES parent, enc bytea)', 'email');
CALL try('CREATE TABLE u (id int, email text, enc bytea, EXCLUDE USING btree (email WITH =))', 'email');
CALL try('CREATE TABLE u (id int, enc bytea UNIQUE)', 'enc');
CALL try('CREATE TABLE u (id int, email text PRIMARY KEY, enc bytea)', 'email');
-- By way of a generated column.
CALL try('CREATE TABLE u (id int, email text, lowered text GENERATED ALWAYS AS (lower(email)) STORED UNIQUE, enc bytea)', 'email');
CALL try('CREATE TABLE u (id int, email text, hashed text GENERATED ALWAYS AS (md5(email)) STORED REFERENCES parent, enc bytea)', 'email');
CALL try('CREATE TABLE u (id int, email text, hashed text GENERATED ALWAYS AS (md5(email)) STORED, enc bytea); CREATE UNIQUE INDEX ON u (left(hashed, 8))', 'email');
CALL try('CREATE TABLE u (id int DEFAULT 1, email text, twice int GENERATED ALWAYS AS (id * 2) STORED UNIQUE, enc bytea DEFAULT NULL)', 'email');
-- What compares other columns, or nothing.
CALL try('CREATE TABLE u (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text, enc bytea);
          CREATE INDEX ON u (email); CREATE UNIQUE INDEX ON u (id) INCLUDE (email)', 'email');
-- One that comes later.
CREATE TABLE u (id int, email text, enc bytea);
CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "email", "target": "enc", "key_id": "local:constraints"}');
INSERT INTO u VALUES (1, 'a@b');
CREATE UNIQUE INDEX later ON u (email);
INSERT INTO u VALUES (2, 'a@b');
\echo :SQLSTATE
DROP INDEX later;
INSERT INTO u VALUES (2, 'a@b');
SELECT id, env_decrypt(enc) FROM u ORDER BY id;

-- Names in errors are as they are; what could forge a line of the log is not.
ALTER TABLE u ADD "столбец" int;
CREATE OR REPLACE TRIGGER "zz" BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "нет", "target": "enc", "key_id": "local:constraints"}');
INSERT INTO u VALUES (3, 'x');
SELECT format('CREATE OR REPLACE TRIGGER zz BEFORE INSERT OR UPDATE ON u FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(%L)',
    jsonb_build_object('source', E'a\nERROR:  b\u2028c\u009b1md\u202ee', 'target', 'enc', 'key_id', 'local:constraints')) AS command \gset
:command;
INSERT INTO u VALUES (3, 'x');
DROP TABLE u, parent;
DROP PROCEDURE try;
