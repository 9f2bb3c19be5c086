-- Encrypt: through a trigger, and in plain SQL.
\echo '== 2. Encrypt =='
\echo 'Through a trigger: clients insert plain text into "note", and it stores ciphertext. The text is that of this'
\echo 'server''s own catalogs: comments, function sources, view definitions.'
\echo

CREATE TABLE note (
    id       int PRIMARY KEY,
    title    text,
    body     text  CONSTRAINT body_is_never_stored CHECK (body IS NULL),
    body_enc bytea CONSTRAINT body_is_encrypted CHECK (env_is_envelope(body_enc))
);

CREATE FUNCTION note_encrypt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.body IS NOT NULL THEN
        -- The last argument binds the value to its row: it opens nowhere else.
        NEW.body_enc := env_encrypt(NEW.body, 'local:demo', '{"table": "note"}', 'note.body:' || NEW.id);
        NEW.body := NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER note_encrypt BEFORE INSERT OR UPDATE ON note FOR EACH ROW EXECUTE FUNCTION note_encrypt();

SELECT clock_timestamp() AS started \gset
INSERT INTO note (id, title, body) SELECT id, title, body FROM original;
SELECT count(*) AS rows, round(count(*) / extract(epoch FROM clock_timestamp() - :'started')) AS rows_per_second FROM original;

\echo 'In plain SQL: a small table "customer" with a text, a jsonb and a bytea column. NULL stays NULL.'
\echo

CREATE TABLE customer (id int PRIMARY KEY, name text, email bytea, address bytea, passport bytea);
INSERT INTO customer
SELECT id, name,
       env_encrypt(email, 'local:demo', '{"table": "customer"}', 'customer.email:' || id),
       env_encrypt(address, 'local:demo', '{"table": "customer"}', 'customer.address:' || id),
       env_encrypt(passport, 'local:demo', '{"table": "customer"}', 'customer.passport:' || id)
FROM customer_original;
SELECT id, name, left(email::text, 24) || '...' AS email_starts_with, octet_length(email) AS email_bytes FROM customer ORDER BY id;
