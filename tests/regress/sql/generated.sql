-- Generated columns, CHECK constraints and indexes.
\set SHOW_CONTEXT never
SELECT env_local_create_key('generated');

-- A generated column over another column.
CREATE TABLE account (
    id int PRIMARY KEY,
    email text,
    email_enc bytea GENERATED ALWAYS AS (env_encrypt_generated(email, 'local:generated', '{"table":"account"}', 'account:' || id)) STORED
);
INSERT INTO account SELECT i, 'user' || i || '@example.com' FROM generate_series(1, 5) AS i;
INSERT INTO account VALUES (6, ''), (7, NULL);
SELECT id, email, env_decrypt(email_enc, 'account:' || id) AS decrypted FROM account ORDER BY id;
SELECT count(DISTINCT email_enc) AS distinct_values, count(DISTINCT env_dek_id(email_enc)) AS deks FROM account;
UPDATE account SET email = 'new@example.com' WHERE id = 1;
SELECT env_decrypt(email_enc, 'account:' || id) FROM account WHERE id = 1;

-- env_encrypt itself is refused there: it is VOLATILE.
CREATE TABLE refused (email text, email_enc bytea GENERATED ALWAYS AS (env_encrypt(email, 'local:generated')) STORED);
\echo :SQLSTATE
-- The plaintext is still there.
SELECT id, email FROM account WHERE id = 1;
DROP TABLE account;

-- Columns that are computed from an encrypted one: they name its key without reading it, follow each change, and can be
-- indexed, granted and referenced by themselves.
CREATE TABLE keyed (
    id int PRIMARY KEY,
    secret bytea,
    key_id text GENERATED ALWAYS AS (env_key_id(secret)) STORED,
    dek_id bytea GENERATED ALWAYS AS (env_dek_id(secret)) STORED
);
CREATE INDEX keyed_key ON keyed (key_id);
SELECT env_local_create_key('generated_2');
INSERT INTO keyed SELECT i, env_encrypt('secret ' || i, 'local:generated') FROM generate_series(1, 3) AS i;
INSERT INTO keyed VALUES (4, NULL);
UPDATE keyed SET secret = env_encrypt('moved', 'local:generated_2') WHERE id = 2;
SELECT id, key_id, dek_id IS NOT DISTINCT FROM env_dek_id(secret) AS same_dek FROM keyed ORDER BY id;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM keyed WHERE key_id = 'local:generated_2';
RESET enable_seqscan;
-- They make the column take nothing but encrypted values: there is no key to compute.
INSERT INTO keyed VALUES (5, 'plain');
\echo :SQLSTATE
DROP TABLE keyed;

-- The label's cost: constant arguments are evaluated once, and both rows get the same value.
SELECT count(DISTINCT v) FROM (SELECT env_encrypt_generated('x'::text, 'local:generated') AS v FROM generate_series(1, 2)) AS s;
SELECT count(DISTINCT v) FROM (SELECT env_encrypt('x'::text, 'local:generated') AS v FROM generate_series(1, 2)) AS s;

-- A CHECK that keeps plaintext out.
CREATE TABLE vault (id int PRIMARY KEY, secret bytea CONSTRAINT secret_is_encrypted CHECK (env_is_envelope(secret)));
INSERT INTO vault SELECT i, env_encrypt('secret ' || i, 'local:generated') FROM generate_series(1, 3) AS i;
INSERT INTO vault VALUES (4, NULL);
\set VERBOSITY terse
INSERT INTO vault VALUES (5, 'plain');
\echo :SQLSTATE
\set VERBOSITY default

-- Indexes on the header.
CREATE INDEX vault_key ON vault (env_key_id(secret));
CREATE INDEX vault_dek ON vault (env_dek_id(secret));
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM vault WHERE env_key_id(secret) = 'local:generated';
SELECT id FROM vault WHERE env_key_id(secret) = 'local:generated' ORDER BY id;
RESET enable_seqscan;

-- An index must not hold plaintext, so env_decrypt is refused in one.
CREATE INDEX vault_plain ON vault (env_decrypt(secret));
\echo :SQLSTATE
CREATE INDEX vault_partial ON vault (id) WHERE env_decrypt(secret) = 'x';
\echo :SQLSTATE
DROP TABLE vault;
