-- What is kept from row to row, and from statement to statement, must follow the arguments, also where they are variables of a function.
SELECT env_local_create_key('site_a'), env_local_create_key('site_b');

CREATE TABLE site (id int, key_id text, context jsonb);
INSERT INTO site VALUES
    (1, 'local:site_a', '{}'), (2, 'local:site_a', '{}'), (3, 'local:site_b', '{}'),
    (4, 'local:site_b', '{"tenant": "1"}'), (5, 'local:site_b', '{"tenant": "2"}'), (6, 'local:site_b', '{"tenant": "2"}'),
    (7, 'local:site_a', '{"tenant": "2"}'), (8, 'local:site_a', '{}');

-- Columns.
SELECT id, env_key_id(value) = key_id AS same_key, env_encryption_context(value) = context AS same_context, env_decrypt(value)
FROM (SELECT id, key_id, context, env_encrypt('row ' || id, key_id, context) AS value FROM site ORDER BY id OFFSET 0) AS made;

-- Variables of a PL/pgSQL function: to PostgreSQL they are parameters, which it calls stable.
CREATE FUNCTION seal_all() RETURNS TABLE (id int, right_key boolean, right_context boolean, plain text)
LANGUAGE plpgsql AS $$
DECLARE
    site_row site;
    value bytea;
BEGIN
    FOR site_row IN SELECT * FROM site ORDER BY site.id LOOP
        value := env_encrypt('row ' || site_row.id, site_row.key_id, site_row.context);
        id := site_row.id;
        right_key := env_key_id(value) = site_row.key_id;
        right_context := env_encryption_context(value) = site_row.context;
        plain := env_decrypt(value);
        RETURN NEXT;
    END LOOP;
END $$;
SELECT * FROM seal_all();

-- A mistake in a later row is an error, and the call site works again afterwards.
PREPARE seal(text, jsonb) AS SELECT count(env_encrypt('x'::text, $1, $2)) FROM generate_series(1, 3);
EXECUTE seal('local:site_a', '{"a": "1"}');
EXECUTE seal('local:site_a', '{"a": 1}');
EXECUTE seal('local:site_a', NULL);
EXECUTE seal(NULL, '{}');
EXECUTE seal('local:site_b', '{"a": "1"}');
SELECT count(env_encrypt('x'::text, CASE WHEN i = 4 THEN NULL ELSE 'local:site_a' END)) FROM generate_series(1, 5) AS i;

DEALLOCATE seal;
DROP FUNCTION seal_all();
DROP TABLE site;
