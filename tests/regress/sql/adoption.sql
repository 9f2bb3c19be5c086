-- An existing plaintext column is encrypted, and decrypted again.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('adopt');
CREATE TABLE adopted (
    id int PRIMARY KEY, plain text, short varchar(20), raw bytea, doc jsonb, number money,
    plain_enc bytea CHECK (env_is_envelope(plain_enc)), short_enc bytea, raw_enc bytea, doc_enc bytea
);
INSERT INTO adopted
SELECT i, 'Text ' || i, CASE WHEN i % 7 <> 0 THEN 'short ' || i END, decode(lpad(to_hex(i), 8, '0'), 'hex'),
       jsonb_build_object('n', i) FROM generate_series(1, 500) AS i;
UPDATE adopted SET plain = '' WHERE id = 1;
UPDATE adopted SET plain = NULL WHERE id = 2;
UPDATE adopted SET plain = repeat('large ', 200000) WHERE id = 3;
-- What is there already stays if it opens to the plaintext, and is written again if it does not.
UPDATE adopted SET plain_enc = env_encrypt(plain, 'local:adopt', '{"table": "adopted"}', 'adopted:' || id) WHERE id = 4;
UPDATE adopted SET plain_enc = env_encrypt('text 5', 'local:adopt', '{"table": "adopted"}', 'adopted:' || id) WHERE id = 5;
UPDATE adopted SET plain_enc = env_encrypt('Text 6', 'local:adopt') WHERE id = 6;
SELECT plain_enc AS kept FROM adopted WHERE id = 4 \gset
CALL env_encrypt_column('adopted', 'plain', 'plain_enc', 'local:adopt', '{"table": "adopted"}',
                        aad_expression => $$'adopted:' || id$$);
SELECT count(*), count(plain_enc), count(*) FILTER (WHERE env_decrypt(plain_enc, 'adopted:' || id) = plain) AS same,
       count(DISTINCT env_encryption_context(plain_enc)) AS contexts, bool_or(plain_enc = :'kept') AS kept
FROM adopted;
SELECT method, state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
CALL env_encrypt_column('adopted', 'short', 'short_enc', 'local:adopt');
CALL env_encrypt_column('adopted', 'raw', 'raw_enc', 'local:adopt', aad_column => 'id');
CALL env_encrypt_column('adopted', 'doc', 'doc_enc', 'local:adopt', clear_source => true);
SELECT count(*) FILTER (WHERE env_decrypt(short_enc) = short) AS short, count(short_enc) AS short_enc,
       count(*) FILTER (WHERE env_decrypt_bytea(raw_enc, id::text) = raw) AS raw,
       count(*) FILTER (WHERE env_decrypt_jsonb(doc_enc) = jsonb_build_object('n', id)) AS doc, count(doc) AS docs_left
FROM adopted;
-- A plaintext that was written since is found by another run, and so is what is to be cleared.
UPDATE adopted SET plain = 'text 10' WHERE id = 10;
CALL env_encrypt_column('adopted', 'plain', 'plain_enc', 'local:adopt', '{"table": "adopted"}',
                        aad_expression => $$'adopted:' || id$$, clear_source => true);
SELECT count(plain) AS left, env_decrypt((SELECT plain_enc FROM adopted WHERE id = 10), 'adopted:10') FROM adopted;

-- And back.
CALL env_decrypt_column('adopted', 'plain_enc', 'plain', aad_expression => $$'adopted:' || id$$);
SELECT count(plain), count(*) FILTER (WHERE plain = 'Text ' || id) AS same FROM adopted;
CALL env_decrypt_column('adopted', 'doc_enc', 'doc', clear_source => true);
SELECT count(*) FILTER (WHERE doc = jsonb_build_object('n', id)) AS doc, count(doc_enc) AS left FROM adopted;
UPDATE adopted SET raw_enc = '\x00' WHERE id = 1;
UPDATE adopted SET raw_enc = env_encrypt('\xff'::bytea, 'local:adopt') WHERE id = 2;
UPDATE adopted SET raw = NULL;
CALL env_decrypt_column('adopted', 'raw_enc', 'raw', aad_column => 'id');
SELECT count(raw), min(id) FILTER (WHERE raw IS NOT NULL) FROM adopted;
SELECT failures, not_envelopes, rows_done FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- A trigger that changes what is stored: nothing is committed.
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.short_enc := env_encrypt('meddled', 'local:adopt');
    RETURN NEW;
END
$$;
CREATE TRIGGER meddle BEFORE UPDATE ON adopted FOR EACH ROW EXECUTE FUNCTION meddle();
UPDATE adopted SET short_enc = NULL WHERE false;
CALL env_encrypt_column('adopted', 'short', 'raw_enc', 'local:adopt');
SELECT count(*) FROM adopted WHERE env_opens_to(raw_enc, short);
DROP TRIGGER meddle ON adopted;
ALTER TABLE adopted ADD COLUMN more bytea;
CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.more := env_encrypt('meddled', 'local:adopt');
    RETURN NEW;
END
$$;
CREATE TRIGGER meddle BEFORE UPDATE ON adopted FOR EACH ROW EXECUTE FUNCTION meddle();
CALL env_encrypt_column('adopted', 'short', 'more', 'local:adopt', clear_source => true);
\echo :SQLSTATE
SELECT count(short), count(more) FROM adopted;
SELECT env_rotation_abandon(run_id) FROM env_rotation WHERE state = 'interrupted';
SELECT state FROM env_rotation ORDER BY run_id DESC LIMIT 1;

-- What is refused.
CALL env_encrypt_column('adopted', 'number', 'more', 'local:adopt');
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'short', 'number', 'local:adopt');
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'nothing', 'more', 'local:adopt');
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'short', 'more', NULL);
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'short', 'more', 'local:adopt', '[]');
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'short', 'more', 'local:adopt', NULL);
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'short', 'more', 'local:adopt', '{"tenant": null}');
\echo :SQLSTATE
CALL env_encrypt_column('adopted', 'raw', 'raw', 'local:adopt');
\echo :SQLSTATE
CALL env_decrypt_column('adopted', 'short', 'plain');
\echo :SQLSTATE
ALTER TABLE adopted ALTER raw_enc SET NOT NULL;
CALL env_decrypt_column('adopted', 'raw_enc', 'raw', clear_source => true);
\echo :SQLSTATE
SELECT env_rotation_abandon(run_id) FROM env_rotation WHERE state = 'interrupted';
DROP TABLE adopted;
DROP FUNCTION meddle();
