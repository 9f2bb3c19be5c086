-- Editing an encrypted value as bytes would destroy it. Each edit is refused with 23000, and nothing is changed.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('edits');
SELECT env_local_create_key('edits_other');
CREATE TABLE f (
    id int PRIMARY KEY,
    photo bytea CHECK (env_is_envelope(photo)),
    body text, body_enc bytea CHECK (env_is_envelope(body_enc)),
    raw bytea, raw_enc bytea,
    doc jsonb, doc_enc bytea
);
CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON f FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "photo", "target": "photo", "key_id": "local:edits"}',
    '{"source": "body", "target": "body_enc", "key_id": "local:edits", "aad": "{id}"}',
    '{"source": "raw", "target": "raw_enc", "key_id": "local:edits"}',
    '{"source": "doc", "target": "doc_enc", "key_id": "local:edits"}');
INSERT INTO f (id, photo, body, raw, doc) VALUES
    (1, decode(repeat('ffd8', 500), 'hex'), 'text', '\x0102', '{"a": 1}'), (2, '\xffd8', 'more text', '\x03', '[]');
CREATE TABLE before AS SELECT * FROM f;

-- The SQLSTATEs of all edits; a statement that is not refused is shown, and rolled back.
CREATE TABLE edits (n int GENERATED ALWAYS AS IDENTITY, statement text);
INSERT INTO edits (statement) VALUES
    ('UPDATE f SET photo = photo || ''\x01'''),
    ('UPDATE f SET photo = ''\x00'' || photo'),
    ('UPDATE f SET photo = photo || photo'),
    ('UPDATE f SET photo = overlay(photo PLACING ''\x0000'' FROM 20)'),
    ('UPDATE f SET photo = overlay(photo PLACING ''\x00000000'' FROM 150 FOR 1)'),
    ('UPDATE f SET photo = substring(photo FROM 10)'),
    ('UPDATE f SET photo = substring(photo FROM 1 FOR 60)'),
    ('UPDATE f SET photo = substring(photo FROM 150 FOR 30)'),
    ('UPDATE f SET photo = set_byte(photo, 100, get_byte(photo, 100) # 1)'),
    ('UPDATE f SET photo = set_byte(photo, 4, 1)'),
    ('UPDATE f SET photo = set_byte(photo, octet_length(photo) - 1, get_byte(photo, octet_length(photo) - 1) # 255)'),
    ('UPDATE f SET photo = set_bit(photo, 1300, 1 - get_bit(photo, 1300))'),
    ('UPDATE f SET photo = trim(''\xf6''::bytea FROM photo)'),
    ('UPDATE f SET photo = convert_to(photo::text, ''UTF8'')'),
    ('UPDATE f SET photo = convert_to(encode(photo, ''base64''), ''UTF8'')'),
    ('UPDATE f SET body_enc = body_enc || ''y'''),
    ('UPDATE f SET body_enc = ''\x00'' || body_enc'),
    ('UPDATE f SET body_enc = substring(body_enc FROM 1 FOR 60)'),
    ('UPDATE f SET body_enc = overlay(body_enc PLACING ''xxxxxxxx'' FROM 90)'),
    ('UPDATE f SET raw_enc = photo || raw_enc'),
    ('UPDATE f SET body = body_enc'),
    ('UPDATE f SET body = body_enc::text || ''y'''),
    ('UPDATE f SET body = ''x'' || encode(body_enc, ''base64'')'),
    ('UPDATE f SET body = encode(body_enc, ''escape'')'),
    ('UPDATE f SET raw = raw_enc'),
    ('UPDATE f SET raw = raw_enc || ''\x01'''),
    ('UPDATE f SET raw = ''\x01'' || photo'),
    ('UPDATE f SET raw = substring(raw_enc FROM 20)'),
    ('UPDATE f SET doc = jsonb_build_object(''photo'', photo)'),
    ('UPDATE f SET doc = jsonb_build_object(''photo'', encode(photo, ''base64''))'),
    ('INSERT INTO f (id, photo) VALUES (1, ''\x01'') ON CONFLICT (id) DO UPDATE SET photo = f.photo || EXCLUDED.photo'),
    ('INSERT INTO f (id, photo) VALUES (1, ''\x01'') ON CONFLICT (id) DO UPDATE SET photo = EXCLUDED.photo || f.photo'),
    ('INSERT INTO f (id, photo) VALUES (1, ''\x01'') ON CONFLICT (id) DO UPDATE SET photo = EXCLUDED.photo || ''\x01'''),
    ('INSERT INTO f (id, photo) VALUES (1, ''\x01'') ON CONFLICT (id) DO UPDATE SET photo = ''\x01'' || EXCLUDED.photo'),
    ('INSERT INTO f (id, photo) VALUES (1, ''\x01'') ON CONFLICT (id) DO UPDATE SET photo = set_byte(EXCLUDED.photo, 160, 1 # get_byte(EXCLUDED.photo, 160))'),
    ('INSERT INTO f (id, body) VALUES (1, ''x'') ON CONFLICT (id) DO UPDATE SET body_enc = f.body_enc || EXCLUDED.body_enc'),
    ('INSERT INTO f (id, body) VALUES (1, ''x'') ON CONFLICT (id) DO UPDATE SET body_enc = EXCLUDED.body_enc || ''x'''),
    ('INSERT INTO f (id, photo) SELECT 9, ''\x00'' || photo FROM before WHERE id = 1'),
    ('INSERT INTO f (id, photo) SELECT 9, substring(photo FROM 1 FOR 60) FROM before WHERE id = 1'),
    ('INSERT INTO f (id, photo) SELECT 9, photo || photo FROM before WHERE id = 1'),
    ('INSERT INTO f (id, body) SELECT 9, photo FROM before WHERE id = 1'),
    ('INSERT INTO f (id, raw) SELECT 9, photo FROM before WHERE id = 1'),
    -- There is no OLD that has the value, and the session has its data key.
    ('INSERT INTO f (id, photo) SELECT 9, photo || ''\x05'' FROM before WHERE id = 1'),
    ('INSERT INTO f (id, photo) SELECT 9, set_byte(photo, 200, 1 # get_byte(photo, 200)) FROM before WHERE id = 1'),
    ('INSERT INTO f (id, photo) SELECT 9, substring(photo FROM 1 FOR octet_length(photo) - 1) FROM before WHERE id = 1'),
    ('INSERT INTO f (id, photo) SELECT 9, set_byte(photo, 4, 1) FROM before WHERE id = 2'),
    ('INSERT INTO f (id, body_enc) SELECT 9, overlay(body_enc PLACING ''x'' FROM octet_length(body_enc)) FROM before WHERE id = 1'),
    ('INSERT INTO f (id, raw_enc) SELECT 9, raw_enc || raw_enc FROM before WHERE id = 1'),
    ('UPDATE f SET photo = before.photo || ''\x05'' FROM before WHERE f.id = 2 AND before.id = 1'),
    ('INSERT INTO f (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET photo = (SELECT photo || ''\x05'' FROM before WHERE id = 2)'),
    -- Bound to another row.
    ('INSERT INTO f (id, body_enc) SELECT 9, body_enc FROM before WHERE id = 1'),
    ('UPDATE f SET body_enc = before.body_enc FROM before WHERE f.id = 2 AND before.id = 1'),
    ('UPDATE f SET id = 9, body_enc = env_rewrap(body_enc, ''local:edits_other'') WHERE id = 1');
DO $$
DECLARE
    edit record;
BEGIN
    FOR edit IN SELECT * FROM edits ORDER BY n LOOP
        BEGIN
            EXECUTE edit.statement;
            RAISE 'not refused';
        EXCEPTION
            WHEN integrity_constraint_violation THEN NULL;
            WHEN OTHERS THEN RAISE WARNING '% %: %', SQLSTATE, SQLERRM, edit.statement;
        END;
    END LOOP;
END
$$;
SELECT count(*) AS edits FROM edits;
SELECT count(*) AS unchanged FROM f JOIN before USING (id)
WHERE (f.photo, f.body_enc, f.raw_enc, f.doc_enc) IS NOT DISTINCT FROM (before.photo, before.body_enc, before.raw_enc, before.doc_enc);

-- What they say.
UPDATE f SET photo = photo || '\x01';
UPDATE f SET body_enc = body_enc || 'y';
UPDATE f SET raw = '\x00' || photo;
INSERT INTO f (id, photo) SELECT 9, '\x00' || photo FROM before WHERE id = 1;
INSERT INTO f (id, photo) SELECT 9, photo || '\x05' FROM before WHERE id = 1;

-- The way that the HINT shows.
UPDATE f SET photo = env_decrypt_bytea(photo) || '\x01' WHERE id = 2;
SELECT env_decrypt_bytea(photo) FROM f WHERE id = 2;

-- What is no edit: another value, the same one, one under other wrapped keys, and none.
UPDATE f SET photo = env_encrypt('\x04'::bytea, 'local:edits') WHERE id = 2;
UPDATE f SET photo = photo, body_enc = body_enc;
UPDATE f SET photo = env_rewrap(photo, 'local:edits_other'), body_enc = env_rewrap(body_enc, 'local:edits_other');
UPDATE f SET photo = env_rewrap(photo, 'local:edits'), body_enc = env_reencrypt(body_enc, 'local:edits', id::text);
UPDATE f SET raw_enc = photo WHERE id = 2;
SELECT id, octet_length(env_decrypt_bytea(photo)), env_decrypt(body_enc, id::text), env_decrypt_bytea(raw_enc) FROM f ORDER BY id;
INSERT INTO f (id, photo) VALUES (1, '\x05') ON CONFLICT (id) DO UPDATE SET photo = EXCLUDED.photo;
SELECT env_decrypt_bytea(photo) FROM f WHERE id = 1;
UPDATE f SET raw_enc = NULL, photo = NULL WHERE id = 2;
-- Values that come from elsewhere.
TRUNCATE f;
INSERT INTO f SELECT * FROM before;
SELECT count(*) FROM f JOIN before USING (id) WHERE f.photo = before.photo;

-- Without its data key nobody is asked for one, so that a restore needs no key: what is damaged is found afterwards.
SELECT env_cache_flush() > 0 AS flushed;
INSERT INTO f (id, photo) SELECT 9, photo || '\x05' FROM before WHERE id = 1;
SELECT id, env_error(photo) FROM f WHERE env_error(photo) IS NOT NULL;
DELETE FROM f WHERE id = 9;
-- Values of the application's own aad, and without one, in a column whose rule has none, or one.
INSERT INTO f (id, photo, body_enc) VALUES (9, env_encrypt('\x01'::bytea, 'local:edits', '{}', 'own'), env_encrypt('x', 'local:edits'));
DELETE FROM f WHERE id = 9;

-- Plaintext that looks a little like a value.
INSERT INTO f (id, photo) VALUES
    (10, '\xf6450101'), (11, '\xf645010100'), (12, decode('f6450101' || repeat('00', 100), 'hex')),
    (13, decode('f6450101' || repeat('deadbeef', 100), 'hex')), (14, decode(repeat('f6450101', 100), 'hex')), (15, '');
UPDATE f SET photo = '\xf6450101', raw = '\xf6450101ff', body = '\xf6450101' WHERE id = 1;
SELECT id, left(env_decrypt_bytea(photo)::text, 20) FROM f WHERE id IN (1, 10, 11, 12, 13, 14, 15) ORDER BY id;

-- On purpose: a value is encrypted again, and an edit still is none.
SET envelope_pg.allow_double_encryption = on;
INSERT INTO f (id, raw) SELECT 20, photo FROM before WHERE id = 1;
SELECT env_decrypt_bytea(env_decrypt_bytea(f.raw_enc)) = env_decrypt_bytea(before.photo) AS twice
FROM f, before WHERE f.id = 20 AND before.id = 1;
UPDATE f SET photo = photo || '\x01' WHERE id = 2;
\echo :SQLSTATE
RESET envelope_pg.allow_double_encryption;

-- env_encrypt of a value: it nearly always was to come under another key.
SELECT env_encrypt(photo, 'local:edits_other') FROM before WHERE id = 1;
\echo :SQLSTATE
SELECT env_encrypt(photo::text, 'local:edits_other') FROM before WHERE id = 1;
SELECT env_encrypt_generated(photo, 'local:edits') FROM before WHERE id = 1;
SELECT env_decrypt_bytea(env_encrypt('\xf6450101'::bytea, 'local:edits')), env_decrypt(env_encrypt('\xf6450101', 'local:edits'));
BEGIN;
SET LOCAL envelope_pg.allow_double_encryption = on;
SELECT env_decrypt_bytea(env_encrypt(photo, 'local:edits_other')) = photo AS twice FROM before WHERE id = 1;
COMMIT;

DROP TABLE f, before, edits;
