-- The extension, and the plaintext to encrypt.
\echo '== 1. A server and a key =='
\echo 'A throw-away PostgreSQL, and an emulator in the place of AWS KMS that counts the calls it gets. The key alias/patients never'
\echo 'leaves it. Statements that the demo runs are shown before their result.'
\echo
\set ECHO queries
CREATE EXTENSION envelope_pg;
\set ECHO none
\echo

-- Stops the demo if something is not as it says.
CREATE FUNCTION must(ok boolean, claim text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF ok IS NOT TRUE THEN
        RAISE EXCEPTION 'not true: %', claim;
    END IF;
    RETURN claim;
END
$$;

\echo 'The text is that of this server''s own catalogs (comments, function sources, view definitions), kept in the table "original"'
\echo 'only to compare with at the end.'
\echo
CREATE TABLE original AS
SELECT row_number() OVER ()::int AS id, body
FROM (
    SELECT description FROM pg_description
    UNION ALL
    SELECT prosrc FROM pg_proc
    UNION ALL
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE prokind <> 'a'
    UNION ALL
    SELECT pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v'
    UNION ALL
    SELECT obj_description(oid, 'pg_proc') FROM pg_proc
    UNION ALL
    SELECT string_agg(pg_get_functiondef(oid), E'\n') FROM pg_proc WHERE prokind <> 'a'
) AS source (body);
