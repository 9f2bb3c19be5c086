-- The extension and a key.
\echo '== 1. A key =='
\echo 'The demo keeps its key in a file of this throw-away server. With AWS KMS only the key id differs.'
\echo
CREATE EXTENSION envelope_pg;
SELECT env_local_create_key('demo') AS key_id;

-- Stops the demo if something is not as it says.
CREATE FUNCTION must(ok boolean, claim text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF ok IS NOT TRUE THEN
        RAISE EXCEPTION 'not true: %', claim;
    END IF;
    RETURN claim;
END
$$;

-- The plaintext, kept here only to compare with in step 4.
CREATE TABLE original AS
SELECT row_number() OVER ()::int AS id, kind, title, body
FROM (
    SELECT 'description', format('%s %s', classoid::regclass, objoid), description FROM pg_description
    UNION ALL
    SELECT 'function source', oid::regprocedure::text, prosrc FROM pg_proc
    UNION ALL
    SELECT 'function definition', oid::regprocedure::text, pg_get_functiondef(oid) FROM pg_proc WHERE prokind <> 'a'
    UNION ALL
    SELECT 'view definition', oid::regclass::text, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v'
    UNION ALL
    SELECT 'function comment', oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM pg_proc
    UNION ALL
    SELECT 'all definitions in one', '', string_agg(pg_get_functiondef(oid), E'\n') FROM pg_proc WHERE prokind <> 'a'
) AS source (kind, title, body);

CREATE TABLE customer_original (id int PRIMARY KEY, name text, email text, address jsonb, passport bytea);
INSERT INTO customer_original VALUES
    (1, 'Ada Byron', 'ada@example.com', '{"street": "12 St James''s Square", "city": "London"}', '\x01a2'),
    (2, 'Jürgen Groß', 'juergen@example.com', '{"street": "Lange Straße 3", "city": "Köln"}', '\x00ff'),
    (3, '山田 花子', 'hanako@example.jp', '{"city": "東京", "floors": [3, 4]}', '\xf645'),
    (4, 'Zoë Nobody', '', '{}', '\x'),
    (5, 'No Contact', NULL, NULL, NULL);
