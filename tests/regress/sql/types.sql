-- Types that have no functions of their own: through the trigger, adoption and functions, under settings that change their output,
-- they come back as they were.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('types');
-- Where it is not installed, a domain stands for it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext') THEN CREATE EXTENSION citext; ELSE CREATE DOMAIN citext AS text; END IF;
END
$$;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kinds (n int GENERATED ALWAYS AS IDENTITY, type text, literal text);
INSERT INTO kinds (type, literal) VALUES
    ('date', '''2024-02-03'''), ('date', '''0044-03-15 BC'''), ('date', '''infinity'''),
    ('timestamp', '''2024-02-03 04:05:06.789012'''), ('timestamptz', '''2024-02-03 04:05:06.789012+13'''),
    ('timestamptz', '''2024-10-27 01:30:00+00'''), ('time', '''23:59:59.999999'''), ('timetz', '''12:00:00+05:30'''),
    ('interval', '''-1 year -2 months +3 days -04:05:06.789'''), ('interval', '''1 day -00:00:01'''), ('interval', '''-1 days'''),
    ('numeric', '1.500'), ('numeric', '''NaN'''), ('numeric(20, 5)', '-123456789.12345'), ('int2', '-32768'), ('int', '42'),
    ('bigint', '9223372036854775807'), ('float8', '0.1::float8 + 0.2'), ('float8', '''-0'''), ('float8', '''-Infinity'''),
    ('float8', '1e300'), ('float8', '5e-324'), ('float4', '0.1'), ('boolean', 'true'), ('boolean', 'false'),
    ('uuid', '''0b6d1dcf-8f5c-4b5b-9e42-3a2f6b5b8a11'''), ('inet', '''10.1.2.3/24'''), ('cidr', '''::/0'''),
    ('int[]', '''[0:2]={1,NULL,3}'''), ('text[]', 'ARRAY[''a,"b'', '''', ''NULL'', NULL]'), ('date[]', '''{2024-02-03}'''),
    ('float8[]', '''{0.1,-0}'''), ('timestamptz[]', '''{"2024-02-03 04:05:06+13"}'''), ('mood', '''it''''s ok'''), ('mood[]', '''{sad}'''),
    ('citext', '''MiXed '''), ('positive', '7'), ('varchar(10)', '''blanks  '''), ('varchar(10)', ''''''), ('char(5)', '''ab'''),
    ('char(5)', ''''''), ('json', '''{"b":1, "a" : [1.0,2e2], "a":null}'''), ('jsonb', '''{"b": 1, "a": [1.0, 2e2]}'''),
    ('bit(3)', 'B''101'''), ('varbit', 'B''10101'''), ('int4range', '''[1,5)'''), ('tstzrange', '''[2024-02-03 04:05:06+13,)'''),
    ('point', '''(0.1,-0)'''), ('pair', '(1, ''x y'')::pair'), ('xml', '''<a>ü</a>'''), ('tsvector', '''a:1 b:2''');
-- A server may be built without it.
DO $$ BEGIN PERFORM xml '<a/>'; EXCEPTION WHEN feature_not_supported THEN DELETE FROM kinds WHERE type = 'xml'; END $$;
CREATE PROCEDURE hostile() LANGUAGE plpgsql AS $$
BEGIN
    SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -15; SET TimeZone = 'Asia/Kathmandu';
    SET bytea_output = 'escape';
END
$$;
CREATE PROCEDURE harmless() LANGUAGE plpgsql AS $$
BEGIN
    SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = 1; SET TimeZone = 'America/St_Johns';
    SET bytea_output = 'hex';
END
$$;
-- Equal, and the same to the last digit and blank. What is compared is binary.
CREATE FUNCTION image(value anyelement) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    binary bytea;
BEGIN
    EXECUTE format('SELECT %s($1)', (SELECT typsend FROM pg_type WHERE oid = pg_typeof(value))) INTO binary USING value;
    RETURN binary;
END
$$;
-- Through the trigger, written under one set of settings and read under another one.
DO $$
DECLARE
    kind record;
    is_same boolean;
    read text;
BEGIN
    FOR kind IN SELECT * FROM kinds ORDER BY n LOOP
        SET client_min_messages = error;
        DROP TABLE IF EXISTS typed;
        SET client_min_messages = warning;
        CALL harmless();
        EXECUTE format('CREATE TABLE typed (id int, source %s, enc bytea CHECK (env_is_envelope(enc)), back %1$s, same %1$s)', kind.type);
        EXECUTE format('INSERT INTO typed (same, back) SELECT %s, NULL', kind.literal);
        CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON typed FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
            '{"source": "source", "target": "enc", "key_id": "local:types"}');
        CALL hostile();
        EXECUTE format('UPDATE typed SET source = %s', 'same');
        CALL harmless();
        read := CASE (SELECT type FROM env_inspect((SELECT enc FROM typed))) WHEN 'text' THEN 'env_decrypt(enc)'
            ELSE 'env_decrypt_jsonb(enc) #>> ''{}''' END;
        IF kind.type = 'jsonb' THEN
            read := 'env_decrypt_jsonb(enc)';
        END IF;
        BEGIN
            EXECUTE format('UPDATE typed SET back = (%s)::%s', read, kind.type);
            SELECT image(back) = image(same) AND source IS NULL INTO is_same FROM typed;
            IF is_same IS NOT TRUE THEN
                RAISE WARNING '% %: %', kind.type, kind.literal, (SELECT typed FROM typed);
            END IF;
        EXCEPTION WHEN undefined_function THEN
            RAISE WARNING '% %: %', kind.type, kind.literal, SQLERRM;
        END;
    END LOOP;
END
$$;
DROP TABLE typed;
-- Through adoption and back: written under the one, read under the other.
CALL harmless();
CREATE TABLE typed (
    id int PRIMARY KEY, date date, timestamptz timestamptz, interval interval, numeric numeric, int int, bigint bigint, float8 float8,
    boolean boolean, uuid uuid, inet inet, ints int[], mood mood, citext citext, positive positive, short varchar(10), letters char(5),
    js json, enc bytea, enc_of text
);
INSERT INTO typed VALUES (1, '2024-02-03', '2024-02-03 04:05:06.789012+13', '-1 year +3 days -04:05:06.789', 1.500, 42, 9e18::bigint,
    0.1::float8 + 0.2, true, '0b6d1dcf-8f5c-4b5b-9e42-3a2f6b5b8a11', '10.1.2.3/24', '[0:1]={1,NULL}', 'it''s ok', 'MiXed', 7,
    'blanks  ', 'ab', '{"b":1, "a" : [1.0,2e2], "a":null}');
INSERT INTO typed (id) VALUES (2);
CREATE TABLE before AS SELECT * FROM typed;
SELECT 'CALL hostile()',
    format('CALL env_encrypt_column(''typed'', %L, ''enc'', ''local:types'', aad_column => ''id'', clear_source => true)', attname),
    format('DO $do$ BEGIN IF EXISTS (SELECT FROM typed WHERE id = 1 AND (%1$I IS NOT NULL OR enc IS NULL))
        THEN RAISE WARNING ''%1$s is not encrypted''; END IF; END $do$', attname),
    'CALL harmless()',
    format('CALL env_decrypt_column(''typed'', ''enc'', %L, aad_column => ''id'', clear_source => true)', attname),
    'DO $do$ BEGIN IF (SELECT t::text FROM typed AS t WHERE id = 1) IS DISTINCT FROM (SELECT t::text FROM before AS t WHERE id = 1)
        THEN RAISE WARNING ''%'', (SELECT t FROM typed AS t WHERE id = 1); END IF; END $do$'
FROM pg_attribute WHERE attrelid = 'typed'::regclass AND attnum BETWEEN 2 AND 18 ORDER BY attnum
\gexec
SELECT count(*) AS runs, count(*) FILTER (WHERE state = 'done') AS done, sum(failures) AS failures FROM env_rotation WHERE relation = 'typed';
SET extra_float_digits = 3;
SELECT count(*) FROM typed JOIN before USING (id) WHERE typed::text = before::text;
RESET ALL;
SET client_min_messages = warning;

-- Functions.
SELECT env_decrypt_jsonb(env_encrypt_jsonb(env_to_jsonb('2024-02-03'::date), 'local:types'));
CALL hostile();
SELECT env_to_jsonb('2024-02-03'::date), env_to_jsonb('2024-02-03 04:05+13'::timestamptz), env_to_jsonb(0.1::float8 + 0.2), env_to_jsonb(1.50),
       env_to_jsonb(true), env_to_jsonb(NULL::int), env_to_jsonb('1 day -00:00:01'::interval), env_to_jsonb('{"a": 1}'::jsonb);
SELECT env_to_jsonb(1::money);
\echo :SQLSTATE
SELECT env_to_jsonb('pg_class'::regclass);
RESET ALL;
SET client_min_messages = warning;
SELECT env_decrypt_bytea(env_encrypt_bytea('\x01', 'local:types')), env_decrypt_jsonb(env_encrypt_jsonb('{"a": 1}', 'local:types', '{}', 'x'), 'x');
SELECT env_encrypt_bytea(env_encrypt_bytea('\x01', 'local:types'), 'local:types');
\echo :SQLSTATE
-- However it is written.
CREATE PROCEDURE again(plaintext text) LANGUAGE plpgsql AS $$
DECLARE
    sealed bytea;
BEGIN
    EXECUTE format('SELECT env_encrypt(%s, ''local:types'') FROM (SELECT env_encrypt(''x'', ''local:types'') AS v) AS s', plaintext) INTO sealed;
    RAISE WARNING '%: encrypted again', plaintext;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING '%: %', plaintext, SQLSTATE;
END
$$;
CALL again('v::text');
CALL again('upper(encode(v, ''hex''))');
CALL again('encode(v, ''base64'')');
CALL again('encode(v, ''escape'')');
CALL again('to_jsonb(v)');
CALL again('to_jsonb(encode(v, ''base64''))');
CALL again('encode(substr(v, 7), ''base64'')');
CALL again('to_jsonb(''f645''::text)');
CALL again('jsonb_build_object(''a'', v)');
DROP PROCEDURE again;
-- A column of values is not adopted, but rotated.
UPDATE typed SET enc = env_encrypt('x', 'local:types');
ALTER TABLE typed ADD again bytea;
CALL env_encrypt_column('typed', 'enc', 'again', 'local:types');
\echo :SQLSTATE
SET envelope_pg.allow_double_encryption = on;
CALL env_encrypt_column('typed', 'enc', 'again', 'local:types');
SELECT count(*) FROM typed WHERE env_decrypt_bytea(again) = enc;
DROP TABLE typed, before, kinds;
DROP PROCEDURE hostile, harmless;
DROP FUNCTION image;
DROP TYPE mood, pair;
DROP DOMAIN positive;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'citext') THEN DROP EXTENSION citext; ELSE DROP DOMAIN citext; END IF;
END
$$;
