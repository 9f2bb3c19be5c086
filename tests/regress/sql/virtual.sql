-- Generated columns that are computed when they are read: PostgreSQL 18 has them, and makes them where STORED is left out.
\set SHOW_CONTEXT never
SELECT current_setting('server_version_num')::int < 180000 AS there_are_none \gset
\if :there_are_none
\quit
\endif
SELECT env_local_create_key('virtual');
CREATE TABLE account (id int PRIMARY KEY, email text, secret bytea);

-- They take no function of an extension.
CREATE TABLE refused (secret bytea, key_id text GENERATED ALWAYS AS (env_key_id(secret)));
\echo :SQLSTATE
ALTER TABLE account ADD v bytea GENERATED ALWAYS AS (env_encrypt_generated(email, 'local:virtual')) VIRTUAL;
\echo :SQLSTATE
-- What is not IMMUTABLE is refused for that, as in a stored one.
ALTER TABLE account ADD v bytea GENERATED ALWAYS AS (env_encrypt(email, 'local:virtual')) VIRTUAL;
\echo :SQLSTATE
ALTER TABLE account ADD v text GENERATED ALWAYS AS (env_decrypt(secret)) VIRTUAL;
\echo :SQLSTATE
-- That holds for all of them, and is not for the rest of the expression.
CREATE FUNCTION refusal_of(arguments text, call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE refused (%s, v boolean GENERATED ALWAYS AS (%s IS NULL) VIRTUAL)', arguments, call);
    DROP TABLE refused;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SELECT refusal_of('a1 integer', 'abs(a1)');
SELECT provolatile, refusal, count(*) > 9 AS are_many
FROM pg_proc AS p
JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'envelope_pg',
LATERAL (
    SELECT string_agg(format('a%s %s', n, t::regtype), ', ') AS columns, string_agg('a' || n, ', ' ORDER BY n) AS names
    FROM unnest(proargtypes) WITH ORDINALITY AS u (t, n)
) AS a,
LATERAL refusal_of(coalesce(columns, 'a integer'), format('%s(%s)', p.oid::regproc, names)) AS refusal
WHERE prokind = 'f' AND NOT proretset AND prorettype <> 'trigger'::regtype AND 'internal'::regtype <> ALL (proargtypes) AND 'anyelement'::regtype <> ALL (proargtypes)
GROUP BY 1, 2 ORDER BY 1, 2;

-- No domain, and no expression that reads one.
CREATE DOMAIN envelope AS bytea CHECK (env_is_envelope(VALUE));
CREATE TABLE refused (secret bytea, v envelope GENERATED ALWAYS AS (secret) VIRTUAL);
\echo :SQLSTATE
CREATE TABLE refused (secret envelope, v int GENERATED ALWAYS AS (length(secret)) VIRTUAL);
\echo :SQLSTATE

-- PostgreSQL's own functions may read an encrypted column, and ours may read what they make, but in an index.
ALTER TABLE account
    ADD upper_email text GENERATED ALWAYS AS (upper(email)) VIRTUAL,
    ADD copied bytea GENERATED ALWAYS AS (secret || ''::bytea),
    ADD bytes int GENERATED ALWAYS AS (length(secret));
CREATE INDEX ON account (env_key_id(copied));
\echo :SQLSTATE
ALTER TABLE account ADD CHECK (env_is_envelope(copied));
\set VERBOSITY terse
INSERT INTO account VALUES (1, NULL, 'plain');
\set VERBOSITY default
INSERT INTO account VALUES (1, 'a@example.com', env_encrypt('secret', 'local:virtual')), (2, NULL, NULL);
SELECT id, env_decrypt(copied), env_key_id(copied), bytes > 100 AS has_bytes FROM account ORDER BY id;
-- The inventory leaves a column out that is computed so: it holds nothing.
SELECT relation, column_name, content, key_id, rows FROM env_inventory('public') WHERE relation = 'account'::regclass;

-- A trigger encrypts before they are computed, and neither reads nor writes them.
CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON account FOR EACH ROW
    EXECUTE FUNCTION env_encrypt_trigger('{"source": "email", "target": "secret", "key_id": "local:virtual", "aad": "{id}"}');
INSERT INTO account (id, email) VALUES (3, 'c@example.com');
UPDATE account SET email = 'new@example.com' WHERE id = 3
    RETURNING old.bytes = new.bytes - 2 AS is_longer, old.copied <> new.copied AS is_new, new.upper_email;
MERGE INTO account AS t USING (VALUES (3, 'third'), (4, 'fourth')) AS s (id, email) ON t.id = s.id
    WHEN MATCHED THEN UPDATE SET email = s.email
    WHEN NOT MATCHED THEN INSERT (id, email) VALUES (s.id, s.email)
    RETURNING merge_action(), new.id, env_decrypt(new.copied, new.id::text), new.upper_email;
CREATE TABLE triggered (LIKE account INCLUDING GENERATED);
CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON triggered FOR EACH ROW
    EXECUTE FUNCTION env_encrypt_trigger('{"source": "upper_email", "target": "secret", "key_id": "local:virtual"}');
INSERT INTO triggered (id, email) VALUES (1, 'a@example.com');
\echo :SQLSTATE
DROP TABLE triggered;

-- They cannot be rotated, but the column that they are computed from.
SET client_min_messages = warning;
CALL env_rotate('account', 'copied', 'local:virtual', 'reencrypt');
\echo :SQLSTATE
DROP TRIGGER encrypt ON account;
DELETE FROM account WHERE id > 2;
SELECT env_local_create_key('virtual_2');
CALL env_rotate('account', 'secret', 'local:virtual_2');
SELECT id, env_decrypt(copied), env_key_id(copied) FROM account ORDER BY id;
-- A source may be one: what is computed is encrypted. It cannot be cleared.
ALTER TABLE account ADD upper_enc bytea;
CALL env_encrypt_column('account', 'upper_email', 'upper_enc', 'local:virtual', clear_source => true);
\echo :SQLSTATE
CALL env_encrypt_column('account', 'upper_email', 'upper_enc', 'local:virtual');
SELECT id, env_decrypt(upper_enc) FROM account ORDER BY id;
DROP TABLE account;
DROP DOMAIN envelope;
DROP FUNCTION refusal_of;
