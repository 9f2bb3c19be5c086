-- A trigger fills the token columns beside the value.
\set SHOW_CONTEXT never
SELECT env_local_create_key('tokens');
SELECT env_create_index_key('t.ssn', 'local:tokens'), env_create_index_key('t.name', 'local:tokens'), env_create_index_key('t.born', 'local:tokens');
CREATE TABLE person (id int PRIMARY KEY, ssn text CHECK (ssn IS NULL), ssn_enc bytea, ssn_token bytea UNIQUE, ssn_short bytea,
                     name text CHECK (name IS NULL), name_enc bytea, name_tokens bytea[],
                     born text CHECK (born IS NULL), born_enc bytea, born_token bytea, born_month bytea);
CREATE TRIGGER zz_encrypt BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "ssn", "target": "ssn_enc", "key_id": "local:tokens", "aad": "ssn:{id}", "tokens": [
        {"column": "ssn_token", "index": "t.ssn", "version": 1, "normalize": ["digits"]},
        {"column": "ssn_short", "index": "t.ssn", "normalize": ["digits"], "bits": 8}]}',
    '{"source": "name", "target": "name_enc", "key_id": "local:tokens", "tokens": [
        {"column": "name_tokens", "index": "t.name", "kind": "prefix", "lengths": [3, 5], "normalize": ["trim", "lower"]}]}',
    '{"source": "born", "target": "born_enc", "key_id": "local:tokens", "tokens": [
        {"column": "born_token", "index": "t.born", "type": "date"},
        {"column": "born_month", "index": "t.born", "kind": "bucket", "type": "date", "width": "30", "origin": "1900-01-01"}]}');
SELECT name, version, columns FROM env_index_key WHERE name LIKE 't.%' ORDER BY name;

CREATE VIEW found AS
SELECT id, env_decrypt(ssn_enc, 'ssn:' || id) AS ssn, env_decrypt(name_enc) AS name, env_decrypt(born_enc) AS born,
       ssn_token = env_blind_index(env_normalize(env_decrypt(ssn_enc, 'ssn:' || id), '{digits}'), 't.ssn', version => 1) AS token,
       ssn_short = env_blind_index(env_normalize(env_decrypt(ssn_enc, 'ssn:' || id), '{digits}'), 't.ssn', 8) AS short,
       name_tokens = env_prefix_tokens(env_normalize(env_decrypt(name_enc), '{trim,lower}'), 't.name', '{3,5}') AS prefixes,
       born_token = env_blind_index(env_decrypt(born_enc)::date, 't.born') AS date,
       born_month = env_bucket_token(env_decrypt(born_enc)::date, 't.born', 30, '1900-01-01') AS month
FROM person;
INSERT INTO person (id, ssn, name, born) VALUES (1, '078-05-1120', ' Lovelace', '1815-12-10'), (2, '078-05-1121', 'Al', NULL), (3, NULL, NULL, NULL);
SELECT * FROM found ORDER BY id;
SELECT id FROM person WHERE ssn_token = env_blind_index('078051120', 't.ssn');
SELECT id FROM person WHERE name_tokens @> ARRAY[env_prefix_token('lovel', 't.name', '{3,5}')];
-- UNIQUE, whatever the spelling.
\set VERBOSITY terse
INSERT INTO person (id, ssn) VALUES (4, '078 05 1120');
\echo :SQLSTATE
\set VERBOSITY default

-- UPDATE changes both, and clearing clears both; what is left alone stays bit for bit.
SELECT ssn_enc, ssn_token, ssn_short FROM person WHERE id = 1 \gset
UPDATE person SET ssn = '078-05-9999', name = 'Hopper', born = '1906-12-09' WHERE id = 1;
SELECT * FROM found WHERE id = 1;
UPDATE person SET id = id WHERE id = 1;
SELECT * FROM found WHERE id = 1;
UPDATE person SET ssn_enc = NULL, name_enc = NULL WHERE id = 1;
SELECT ssn_enc, ssn_token, ssn_short, name_tokens FROM person WHERE id = 1;

-- As a restore does: a value with its tokens is taken, and what is forged is not.
UPDATE person SET ssn_enc = :'ssn_enc', ssn_token = :'ssn_token', ssn_short = :'ssn_short' WHERE id = 1;
SELECT ssn, token, short FROM found WHERE id = 1;
\set VERBOSITY terse
UPDATE person SET ssn_token = (SELECT ssn_token FROM person WHERE id = 2) WHERE id = 1;
\echo :SQLSTATE
UPDATE person SET ssn_short = '\x0000' WHERE id = 1;
UPDATE person SET name_tokens = '{}' WHERE id = 2;
UPDATE person SET ssn_token = '\x00' WHERE id = 3;
\echo :SQLSTATE
INSERT INTO person (id, ssn, ssn_token) VALUES (5, '1', '\x01');
\echo :SQLSTATE
\set VERBOSITY default
UPDATE person SET name_tokens = '{\x00000000}' WHERE id = 1;
\echo :SQLSTATE
-- Set to null: made again.
UPDATE person SET ssn_token = NULL, ssn_short = NULL WHERE id = 1;
SELECT ssn, token, short FROM found WHERE id = 1;

-- What has no token of its type; the plaintext is not in the error.
INSERT INTO person (id, born) VALUES (6, '10 December 1815');
\echo :SQLSTATE
INSERT INTO person (id, born) VALUES (6, '1815-13-45');
INSERT INTO person (id, born) VALUES (6, 'infinity');
\echo :SQLSTATE

-- Wrong rules
CREATE TABLE wrong (a text, e bytea, t bytea, ts bytea[]);
CREATE FUNCTION try_rule(tokens text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER z BEFORE INSERT OR UPDATE ON wrong FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(%L)',
                   format('{"source": "a", "target": "e", "key_id": "local:tokens", "tokens": [%s]}', tokens));
    INSERT INTO wrong (a) VALUES ('x');
END
$$;
SELECT try_rule('{"column": "ts", "index": "t.ssn"}');
\echo :SQLSTATE
SELECT try_rule('{"column": "t", "index": "t.ssn", "kind": "prefix", "lengths": [3]}');
SELECT try_rule('{"column": "nowhere", "index": "t.ssn"}');
\echo :SQLSTATE
SELECT try_rule('{"column": "e", "index": "t.ssn"}');
SELECT try_rule('{"column": "t", "index": "t.ssn", "bits": 99}');
\echo :SQLSTATE
SELECT try_rule('{"column": "t", "index": "no such"}');
\echo :SQLSTATE
SELECT try_rule('{"column": "t", "index": "t.ssn", "version": 7}');

-- A domain over a token column holds, also where the trigger fills or clears it.
CREATE DOMAIN token AS bytea CHECK (octet_length(VALUE) = 16);
CREATE DOMAIN some_tokens AS bytea[] CHECK (cardinality(VALUE) > 0);
CREATE DOMAIN kept_token AS token NOT NULL;
CREATE TABLE of_domains (a text, e bytea, t token, ts some_tokens);
CREATE TRIGGER z BEFORE INSERT OR UPDATE ON of_domains FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "a", "target": "e", "key_id": "local:tokens", "tokens": [
        {"column": "t", "index": "t.ssn"}, {"column": "ts", "index": "t.name", "kind": "prefix", "lengths": [3]}]}');
INSERT INTO of_domains (a) VALUES ('long enough');
\set VERBOSITY terse
INSERT INTO of_domains (a) VALUES ('no');
\echo :SQLSTATE
CREATE OR REPLACE TRIGGER z BEFORE INSERT OR UPDATE ON of_domains FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "a", "target": "e", "key_id": "local:tokens", "tokens": [{"column": "t", "index": "t.ssn", "bits": 8}]}');
UPDATE of_domains SET a = 'another';
\echo :SQLSTATE
ALTER TABLE of_domains ADD kept kept_token DEFAULT env_blind_index('long enough', 't.ssn');
CREATE OR REPLACE TRIGGER z BEFORE INSERT OR UPDATE ON of_domains FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "a", "target": "e", "key_id": "local:tokens", "tokens": [{"column": "kept", "index": "t.ssn"}]}');
UPDATE of_domains SET a = 'another';
SELECT kept = env_blind_index('another', 't.ssn') AS filled FROM of_domains;
UPDATE of_domains SET e = NULL;
\echo :SQLSTATE
\set VERBOSITY default
-- Existing values: the column's NOT NULL does, the domain's is refused before anything is done.
CALL env_index_column('of_domains', 'kept');
\echo :SQLSTATE
ALTER TABLE of_domains ALTER kept TYPE token, ALTER kept SET NOT NULL, DISABLE TRIGGER z;
UPDATE of_domains SET kept = decode(repeat('00', 16), 'hex');
ALTER TABLE of_domains ENABLE TRIGGER z;
CALL env_index_column('of_domains', 'kept');
SELECT kept = env_blind_index('another', 't.ssn') AS filled FROM of_domains;
DROP TABLE of_domains;
DROP DOMAIN kept_token, some_tokens, token;

-- A UNIQUE index on unpinned tokens keeps an index key from being rotated.
SELECT try_rule('{"column": "t", "index": "t.name"}');
CREATE UNIQUE INDEX ON wrong (t);
SELECT env_rotate_index_key('t.name');
\echo :SQLSTATE
SELECT env_retire_index_key('t.ssn', 1);
\echo :SQLSTATE
DROP TABLE wrong;

-- Existing values get tokens in batches.
CREATE TABLE adopted (id int PRIMARY KEY, a text, e bytea, t bytea);
CREATE TRIGGER z BEFORE INSERT OR UPDATE ON adopted FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "a", "target": "e", "key_id": "local:tokens"}');
INSERT INTO adopted (id, a) SELECT n, 'value ' || n FROM generate_series(1, 2000) AS n;
CALL env_index_column('adopted', 't');
\echo :SQLSTATE
CREATE OR REPLACE TRIGGER z BEFORE INSERT OR UPDATE ON adopted FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "a", "target": "e", "key_id": "local:tokens", "tokens": [{"column": "t", "index": "t.name"}]}');
CALL env_index_column('adopted', 't', batch_blocks => 3);
SELECT count(*) FROM adopted WHERE t = env_blind_index(env_decrypt(e), 't.name');
-- Again there is nothing to do; after a rotation there is.
SELECT sum(hashtext(ctid::text)) AS before FROM adopted \gset
CALL env_index_column('adopted', 't');
SELECT sum(hashtext(ctid::text)) = :before AS untouched FROM adopted;
SELECT env_rotate_index_key('t.name');
CALL env_index_column('adopted', 't');
SELECT count(*) FROM adopted WHERE t = env_blind_index(env_decrypt(e), 't.name', version => 2);
-- Rows that cannot have one are left alone, and an error at the end; a trigger that does not fire is found out.
ALTER TABLE adopted DISABLE TRIGGER z;
UPDATE adopted SET t = NULL, e = CASE WHEN id % 500 = 0 THEN set_byte(e, 150, 255 - get_byte(e, 150)) ELSE e END;
CALL env_index_column('adopted', 't');
\echo :SQLSTATE
ALTER TABLE adopted ENABLE TRIGGER z;
\set VERBOSITY terse
CALL env_index_column('adopted', 't');
\echo :SQLSTATE
\set VERBOSITY default
SELECT count(*), count(t) FROM adopted;
BEGIN;
CALL env_index_column('adopted', 't');
\echo :SQLSTATE
ROLLBACK;
DROP VIEW found;
DROP TABLE person, adopted;
DROP FUNCTION try_rule;
