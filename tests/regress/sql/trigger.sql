-- env_encrypt_trigger: what it stores, and what it leaves alone.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('trigger');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN encrypted AS bytea CHECK (env_is_envelope(VALUE, 'local:trigger'));

-- Each type of source, several columns in one trigger, with and without aad and context.
CREATE TABLE person (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000007',
    ssn text CHECK (ssn IS NULL), ssn_enc bytea,
    phone varchar(20) CHECK (phone IS NULL), phone_enc bytea CHECK (env_is_envelope(phone_enc, 'local:trigger')),
    profile jsonb CHECK (profile IS NULL), profile_enc bytea,
    mail email, mail_enc encrypted,
    raw bytea CHECK (raw IS NULL), raw_enc bytea,
    photo bytea CHECK (env_is_envelope(photo)),
    note text
);
CREATE TRIGGER person_encrypt BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "ssn", "target": "ssn_enc", "key_id": "local:trigger", "aad": "person.ssn:{id}"}',
    '{"source": "phone", "target": "phone_enc", "key_id": "local:trigger", "encryption_context": {"table": "person"}}',
    '{"source": "profile", "target": "profile_enc", "key_id": "local:trigger", "aad": "{{profile}}:{tenant}:{id}"}',
    '{"source": "mail", "target": "mail_enc", "key_id": "local:trigger"}',
    '{"source": "raw", "target": "raw_enc", "key_id": "local:trigger"}',
    '{"source": "photo", "target": "photo", "key_id": "local:trigger", "aad": "person.photo:{id}"}'
);
CREATE VIEW opened AS
    SELECT id, ssn, phone, profile, mail, raw, note,
           env_decrypt(ssn_enc, 'person.ssn:' || id) AS ssn_opened,
           env_decrypt(phone_enc) AS phone_opened,
           env_decrypt_jsonb(profile_enc, '{profile}:' || tenant || ':' || id) AS profile_opened,
           env_decrypt(mail_enc) AS mail_opened,
           env_decrypt_bytea(raw_enc) AS raw_opened,
           env_decrypt_bytea(photo, 'person.photo:' || id) AS photo_opened
    FROM person;

INSERT INTO person (ssn, phone, profile, mail, raw, photo)
    VALUES ('078-05-1120', '555-0100', '{"a": [1, null]}', 'a@example.com', '\x00ff', '\xd8ff');
INSERT INTO person (ssn, phone, profile, raw, photo) VALUES ('', '', 'null', '', '');
INSERT INTO person DEFAULT VALUES RETURNING ssn, ssn_enc, photo;
COPY person (ssn, photo, note) FROM stdin;
123-45-6789	\\xcafe	copied
\N	\N	only a note
\.
\pset null '(null)'
SELECT * FROM opened ORDER BY id \gx
SELECT DISTINCT env_encryption_context(phone_enc), env_encryption_context(ssn_enc) FROM person WHERE ssn_enc IS NOT NULL ORDER BY 1 NULLS FIRST;

-- The row that the statement returns is the row that is stored.
INSERT INTO person (ssn, photo) VALUES ('987-65-4321', '\xbeef')
    RETURNING ssn, env_decrypt(ssn_enc, 'person.ssn:' || id), env_decrypt_bytea(photo, 'person.photo:' || id);

-- An UPDATE of other columns leaves values alone, bit for bit.
CREATE TEMP TABLE before AS SELECT * FROM person;
UPDATE person SET note = 'changed';
UPDATE person SET note = 'again', ssn_enc = ssn_enc, photo = photo;
SELECT count(*) AS changed FROM person JOIN before USING (id)
WHERE (person.ssn_enc, person.phone_enc, person.profile_enc, person.mail_enc, person.raw_enc, person.photo)
    IS DISTINCT FROM (before.ssn_enc, before.phone_enc, before.profile_enc, before.mail_enc, before.raw_enc, before.photo);

-- An UPDATE of a source encrypts that column, and no other.
UPDATE person SET ssn = '111-11-1111' WHERE id = 1;
UPDATE person SET photo = '\x0102' WHERE id = 1;
SELECT ssn, ssn_opened, phone_opened, photo_opened FROM opened WHERE id = 1;
SELECT person.ssn_enc = before.ssn_enc AS ssn, person.photo = before.photo AS photo,
       person.phone_enc = before.phone_enc AS phone, person.raw_enc = before.raw_enc AS raw
FROM person JOIN before USING (id) WHERE id = 1;

-- The same plaintext again is a new value.
UPDATE person SET ssn = '111-11-1111' WHERE id = 1 RETURNING env_decrypt(ssn_enc, 'person.ssn:1');

-- An encrypted value can be set by hand, and null clears.
UPDATE person SET ssn_enc = env_encrypt('222-22-2222', 'local:trigger', '{}', 'person.ssn:1'),
                  photo = env_encrypt('\x03'::bytea, 'local:trigger', '{}', 'person.photo:1') WHERE id = 1;
SELECT ssn_opened, photo_opened FROM opened WHERE id = 1;
UPDATE person SET ssn_enc = NULL, photo = NULL WHERE id = 1;
SELECT ssn_opened, photo_opened FROM opened WHERE id = 1;
-- Plaintext with the old value set to null is plaintext.
UPDATE person SET ssn = '333-33-3333', ssn_enc = NULL WHERE id = 1;
SELECT ssn_opened FROM opened WHERE id = 1;

-- The text of an aad column changes together with the value.
UPDATE person SET tenant = '00000000-0000-0000-0000-000000000008', profile = '{"b": 2}' WHERE id = 1;
SELECT profile_opened FROM opened WHERE id = 1;
-- A value that is not bound to the column does not care: this row has no profile.
UPDATE person SET tenant = '00000000-0000-0000-0000-000000000008' WHERE id = 3;

-- INSERT ... ON CONFLICT: EXCLUDED is encrypted already.
CREATE TABLE account (
    id int PRIMARY KEY,
    iban text CHECK (iban IS NULL), iban_enc bytea NOT NULL,
    pin bytea
);
CREATE TRIGGER account_encrypt BEFORE INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "iban", "target": "iban_enc", "key_id": "local:trigger", "aad": "account.iban:{id}"}',
    '{"source": "pin", "target": "pin", "key_id": "local:trigger", "aad": "account.pin:{id}"}');
CREATE VIEW opened_account AS
    SELECT id, iban, env_decrypt(iban_enc, 'account.iban:' || id) AS iban_opened,
           env_decrypt_bytea(pin, 'account.pin:' || id) AS pin_opened
    FROM account;
INSERT INTO account VALUES (1, 'DE01', NULL, '\x01'), (2, 'DE02', NULL, '\x02');
INSERT INTO account VALUES (1, 'DE11', NULL, '\x11'), (3, 'DE03', NULL, '\x03')
    ON CONFLICT (id) DO UPDATE SET iban_enc = EXCLUDED.iban_enc, pin = EXCLUDED.pin;
SELECT * FROM opened_account ORDER BY id;
-- The other spelling would lose the new value, so it is refused.
INSERT INTO account VALUES (1, 'DE21', NULL, '\x21') ON CONFLICT (id) DO UPDATE SET iban = EXCLUDED.iban;
\echo :SQLSTATE
INSERT INTO account VALUES (1, 'DE31', NULL, '\x31') ON CONFLICT (id) DO NOTHING;
INSERT INTO account VALUES (1, 'DE41', NULL, '\x41') ON CONFLICT (id) DO UPDATE SET iban = 'DE42', pin = '\x42';
SELECT * FROM opened_account ORDER BY id;

-- A target that is NOT NULL takes what the trigger puts there, and nothing less.
\set VERBOSITY terse
INSERT INTO account VALUES (4, NULL, NULL, NULL);
\echo :SQLSTATE
\set VERBOSITY default

-- A column that is computed from the target sees the encrypted value, and one that is computed from the source sees null.
CREATE TABLE computed (
    id int PRIMARY KEY,
    secret text,
    secret_enc bytea,
    key_id text GENERATED ALWAYS AS (env_key_id(secret_enc)) STORED,
    dek_id bytea GENERATED ALWAYS AS (env_dek_id(secret_enc)) STORED,
    has_plaintext boolean GENERATED ALWAYS AS (secret IS NOT NULL) STORED
);
CREATE TRIGGER computed_encrypt BEFORE INSERT OR UPDATE ON computed FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger"}');
INSERT INTO computed (id, secret) VALUES (1, 'a'), (2, NULL);
SELECT id, key_id, dek_id = env_dek_id(secret_enc) AS same_dek, has_plaintext FROM computed ORDER BY id;
UPDATE computed SET secret = 'b';
SELECT id, key_id, dek_id = env_dek_id(secret_enc) AS same_dek, has_plaintext FROM computed ORDER BY id;

-- Rows from before the trigger are encrypted when they are next written.
CREATE TABLE older (id int PRIMARY KEY, secret text, secret_enc bytea, blob bytea);
INSERT INTO older VALUES (1, 'plain', NULL, 'plain'), (2, NULL, 'not encrypted', NULL);
CREATE TRIGGER older_encrypt BEFORE INSERT OR UPDATE ON older FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger"}',
    '{"source": "blob", "target": "blob", "key_id": "local:trigger"}');
UPDATE older SET id = id + 10;
SELECT id, secret, env_is_envelope(secret_enc) AS secret_enc, env_is_envelope(blob) AS blob FROM older ORDER BY id;
SELECT env_decrypt(secret_enc), convert_from(env_decrypt_bytea(blob), 'UTF8') FROM older WHERE id = 11;

-- What only begins as a value does is plaintext.
INSERT INTO older (id, blob) VALUES (3, '\xf645'), (4, '\xf6450101'), (5, '\xf64502');
SELECT id, env_decrypt_bytea(blob) FROM older WHERE id BETWEEN 3 AND 5 ORDER BY id;

-- Values that are stored out of line are recognized as well.
ALTER TABLE older ALTER blob SET STORAGE EXTERNAL, ALTER secret_enc SET STORAGE EXTERNAL;
INSERT INTO older VALUES (6, repeat('long ', 10000), NULL, convert_to(repeat('long ', 10000), 'UTF8'));
SELECT pg_column_size(blob) > 50000 AS long, env_decrypt_bytea(blob) = convert_to(repeat('long ', 10000), 'UTF8') AS same FROM older WHERE id = 6;
CREATE TEMP TABLE long AS SELECT * FROM older WHERE id = 6;
UPDATE older SET id = 7 WHERE id = 6;
UPDATE older SET (blob, secret_enc) = (SELECT blob, secret_enc FROM long) WHERE id = 7;
SELECT older.blob = long.blob AND older.secret_enc = long.secret_enc AS unchanged FROM older, long WHERE older.id = 7;

DROP VIEW opened, opened_account;
DROP TABLE person, account, computed, older, before, long;
DROP DOMAIN email, encrypted;
