-- A null for what somebody must say is an error 22004, and never nothing done in silence: each argument of each function and procedure
-- that people call, from the catalog, so a new one is here by itself. The others are given as they are meant; those with a default
-- are left out. Shown is where null is no error: a plaintext or a value, whose result is null, and restrictions that are left out.
\set SHOW_CONTEXT never
SELECT env_local_create_key('null_arguments');
CREATE TABLE null_argument (id int PRIMARY KEY, plain text, other text, sealed bytea);
INSERT INTO null_argument VALUES (1, 'x', NULL, env_encrypt('x'::text, 'local:null_arguments'));

CREATE TABLE sample (argument text, type regtype, expression text);
INSERT INTO sample VALUES
    ('plaintext', 'text', $$'x'$$), ('plaintext', 'bytea', $$'\x01'$$), ('plaintext', 'jsonb', $$'1'$$), ('plaintext', 'anyelement', '1'),
    ('value', 'text', $$'x'$$), ('value', 'bytea', '(SELECT sealed FROM null_argument)'), ('value', 'anyelement', '1'),
    ('value', 'boolean', 'true'), ('value', 'smallint', '1'), ('value', 'integer', '1'), ('value', 'bigint', '1'), ('value', 'numeric', '1'),
    ('value', 'date', $$'2026-01-01'$$), ('value', 'timestamp', $$'2026-01-01'$$), ('value', 'timestamptz', $$'2026-01-01 00:00+00'$$),
    ('value', 'uuid', $$'00000000-0000-0000-0000-000000000001'$$);
CREATE FUNCTION sample_of(argument text, wanted regtype) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(
        (SELECT expression FROM sample AS s WHERE s.argument = $1 AND s.type = wanted),
        CASE
            WHEN argument IN ('key_id', 'to_key', 'other_key_id') THEN $q$'local:null_arguments'$q$
            WHEN argument IN ('name', 'index_name') THEN $q$'null_arguments'$q$
            WHEN argument = 'relation' THEN $q$'null_argument'$q$
            WHEN argument = 'source_column' THEN $q$'plain'$q$
            WHEN argument IN ('column_name', 'target_column') THEN $q$'sealed'$q$
            WHEN argument = 'steps' THEN $q$'{trim}'$q$
            WHEN argument = 'lengths' THEN $q$'{3}'$q$
            ELSE (SELECT s.expression FROM sample AS s WHERE s.argument = 'value' AND s.type = wanted) END,
        CASE WHEN wanted = 'jsonb'::regtype THEN $q$'{}'$q$ WHEN wanted = 'interval'::regtype THEN $q$'1 day'$q$
             WHEN wanted = 'bytea[]'::regtype THEN $q$'{}'$q$ ELSE $q$'x'$q$ END)
$$;

BEGIN;
-- An index key stays for ever.
SELECT env_create_index_key('null_arguments', 'local:null_arguments');
CREATE TABLE outcome (function text, argument text, outcome text);
DO $$
DECLARE
    called record;
    found text;
BEGIN
    SET LOCAL client_min_messages = error;
    FOR called IN
        WITH argument AS (
            SELECT p.oid, p.prokind, p.pronamespace::regnamespace AS schema, p.proname, a.name, a.type::regtype AS type, a.number,
                   a.number > p.pronargs - p.pronargdefaults AS has_default
            FROM pg_proc AS p
            JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'envelope_pg' AND e.extnamespace = p.pronamespace
            CROSS JOIN LATERAL (
                SELECT row_number() OVER (ORDER BY n.ordinality) AS number, n.name, t.type
                FROM unnest(p.proargnames) WITH ORDINALITY AS n (name, ordinality)
                JOIN unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS t (type, ordinality) USING (ordinality)
                WHERE coalesce(p.proargmodes[ordinality], 'i') IN ('i', 'b')) AS a)
        SELECT proname, prokind, name,
               format(CASE prokind WHEN 'p' THEN 'CALL %s.%I(%s)' WHEN 'a' THEN 'SELECT %s.%I(%s)::text' ELSE 'SELECT to_jsonb(c)::text FROM %s.%I(%s) AS c' END,
                   schema, proname, (
                   SELECT string_agg(format(CASE WHEN argument.prokind = 'a' THEN '%2$s' ELSE '%1$I => %2$s' END, o.name,
                              format('CAST(%s AS %s)', CASE WHEN o.number = argument.number THEN 'NULL' ELSE sample_of(o.name, o.type) END,
                                     replace(o.type::text, 'anyelement', 'integer'))), ', ' ORDER BY o.number)
                   FROM argument AS o WHERE o.oid = argument.oid AND (o.number = argument.number OR NOT o.has_default))) AS call
        FROM argument ORDER BY oid::regprocedure::text, number
    LOOP
        BEGIN
            IF called.prokind = 'p' THEN
                EXECUTE called.call;
                found := 'done';
            ELSE
                EXECUTE called.call INTO found;
                found := CASE WHEN found IS NULL OR found = 'null' OR found ~ '^{("[a-z_]+": null(, )?)+}$' THEN 'null'
                              WHEN called.name IN ('plaintext', 'value') THEN 'a value: ' || found ELSE 'as if it was not given' END;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            -- A run goes on until it cannot commit here, or to what its columns do not have.
            found := CASE WHEN SQLSTATE <> '22004' AND called.prokind = 'p' THEN 'as if it was not given'
                WHEN SQLSTATE <> '22004' THEN format('%s: %s', SQLSTATE, SQLERRM)
                WHEN SQLERRM NOT LIKE '%' || called.name || '%' THEN SQLERRM END;
        END;
        INSERT INTO outcome VALUES (called.proname, called.name, coalesce(found, 'refused'));
    END LOOP;
END
$$;
SELECT count(*) > 100 AS many FROM outcome WHERE outcome = 'refused';
\pset format unaligned
SELECT string_agg(DISTINCT function, ', ' ORDER BY function) AS functions, argument, outcome FROM outcome
WHERE outcome <> 'refused' GROUP BY argument, outcome ORDER BY outcome COLLATE "C", argument COLLATE "C";

\pset format aligned
ROLLBACK;

-- They say what may be meant.
SELECT env_cache_flush(NULL);
SELECT env_rotate_index_key(NULL);
SELECT env_retire_index_key('null_arguments', NULL);
CALL env_rotate('null_argument', 'sealed', NULL, method => NULL);
CALL env_decrypt_column('null_argument', 'sealed', 'other', clear_source => NULL);
-- array_agg of no rows: no values.
SELECT * FROM env_warm((SELECT array_agg(sealed) FROM null_argument WHERE false));

DROP TABLE null_argument, sample;
DROP FUNCTION sample_of;
