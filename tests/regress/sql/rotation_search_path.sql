-- Whatever stands in front of pg_catalog in the caller's search_path, the procedures and what they execute use their own
-- names only.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('path_old'), env_local_create_key('path_new');
CREATE TABLE victim (id int PRIMARY KEY, plain text, plain_enc bytea, value bytea);
INSERT INTO victim SELECT i, 'text ' || i, NULL, env_encrypt('text ' || i, 'local:path_old') FROM generate_series(1, 300) AS i;
-- A value that fails, so that batches are done row by row too.
UPDATE victim SET value = set_byte(value, octet_length(value) - 1, get_byte(value, octet_length(value) - 1) # 1) WHERE id = 7;

CREATE SCHEMA hostile;
DO $$
DECLARE
    o record;
BEGIN
    FOR o IN SELECT oid, oprname, oprleft, oprright, oprresult FROM pg_operator
             WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft <> 0
               AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '->', '->>', '?', '&', '>>', '~~')
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', o.oid,
            format_type(o.oprleft, NULL), format_type(o.oprright, NULL), format_type(o.oprresult, NULL),
            'BEGIN RAISE ''an operator was hijacked''; END');
        EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.o%s, LEFTARG = %s, RIGHTARG = %s)', o.oprname, o.oid,
            format_type(o.oprleft, NULL), format_type(o.oprright, NULL));
    END LOOP;
    FOR o IN SELECT DISTINCT ON (proname, pg_get_function_identity_arguments(oid)) oid, proname, prokind, prorettype::regtype AS result,
                    pg_get_function_identity_arguments(oid) AS arguments
             FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
                AND pg_get_function_identity_arguments(oid) !~ '"any"' AND proname IN
                 ('format', 'jsonb_build_object', 'jsonb_strip_nulls', 'encode', 'decode', 'pg_sleep', 'clock_timestamp', 'array_cat',
                  'unnest', 'quote_ident', 'quote_literal', 'array_position', 'array_remove', 'ceil', 'floor', 'round', 'split_part',
                  'pg_relation_size', 'current_setting', 'left', 'btrim', 'replace', 'has_table_privilege', 'row_security_active')
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', o.proname,
            replace(o.arguments, ' OUT ', ' '), o.result, 'BEGIN RAISE ''a function was hijacked''; END');
    END LOOP;
END
$$;
CREATE DOMAIN hostile.text AS integer;
CREATE DOMAIN hostile.jsonb AS integer;
CREATE DOMAIN hostile.bytea AS integer;
CREATE DOMAIN hostile.tid AS integer;
CREATE TABLE hostile.env_rotation_run (run_id int);
CREATE FUNCTION hostile.env_rewrap(pg_catalog.bytea, pg_catalog.text) RETURNS pg_catalog.bytea LANGUAGE sql AS 'SELECT NULL::pg_catalog.bytea';
SET search_path = hostile, pg_catalog, public;
-- It is hostile.
SELECT 1 = 1;
CALL public.env_rotate('public.victim', 'value', 'local:path_new');
CALL public.env_rotate('public.victim', 'value', 'local:path_new', 'reencrypt', max_rows_per_second => 100000, on_locked => 'wait');
CALL public.env_encrypt_column('public.victim', 'plain', 'plain_enc', 'local:path_old', clear_source => true);
CALL public.env_decrypt_column('public.victim', 'plain_enc', 'plain');
SELECT state, rows_done, failures FROM public.env_rotation WHERE relation OPERATOR(pg_catalog.=) 'victim' ORDER BY run_id;
SELECT rows_to_change FROM public.env_rotation_plan('public.victim', 'value', 'local:path_old');
SELECT public.env_rotation_abandon(9999);
RESET search_path;
SELECT env_key_id(value), env_key_id(plain_enc), count(*), count(plain) FROM victim GROUP BY 1, 2;
SET client_min_messages = error;
DROP SCHEMA hostile CASCADE;
DROP TABLE victim;
