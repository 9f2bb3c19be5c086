-- Encrypt: through a trigger, and in plain SQL.
\echo '== 2. Encrypt =='
\echo 'Through a trigger: clients write plain text into "body", and the table stores ciphertext in "body_enc".'
\echo
\set ECHO queries
CREATE TABLE note (
    id       int PRIMARY KEY,
    body     text  CHECK (body IS NULL),
    body_enc bytea CHECK (env_is_envelope(body_enc))
);
CREATE TRIGGER zz_encrypt BEFORE INSERT OR UPDATE ON note FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "body", "target": "body_enc", "key_id": "alias/patients", "aad": "note.body:{id}"}');

\timing on
INSERT INTO note (id, body) SELECT id, body FROM original;
\timing off
SELECT count(*) AS rows, count(body) AS in_clear, count(body_enc) AS encrypted FROM note;
\set ECHO none

\echo 'Calls to KMS, as the emulator counts them: one for a data key, not one for each row.'
\echo
\! cat "$KMS_CALLS"
\set calls `awk '{ total += $2 } END { print total + 0 }' "$KMS_CALLS"`
SELECT must(:calls = 1, 'one call to KMS for all rows') \gset

\echo
\echo 'In plain SQL: text, jsonb and bytea. NULL stays NULL.'
\echo
\set ECHO queries
CREATE TABLE customer (id int PRIMARY KEY, name text, email bytea, address bytea, passport bytea);
INSERT INTO customer VALUES
    (1, 'Ada Byron', env_encrypt('ada@example.com', 'alias/people', '{}', 'customer.email:1'),
        env_encrypt('{"city": "London"}'::jsonb, 'alias/people'), env_encrypt('\x01a2'::bytea, 'alias/people')),
    (2, 'Jürgen Groß', env_encrypt('juergen@example.com', 'alias/people', '{}', 'customer.email:2'), NULL, NULL);
SELECT id, name, left(email::text, 24) || '...' AS email_starts_with, octet_length(email) AS email_bytes FROM customer;
\set ECHO none
