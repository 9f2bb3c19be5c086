-- Printed and not run: a view is the owner's, to be read and changed before.
CREATE OR REPLACE FUNCTION envelope_internal.aad_expression(template text, of_row text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(CASE WHEN part[1] IN ('{{', '}}') THEN quote_literal(left(part[1], 1))
                           WHEN part[1] ~ E'^\\{' THEN of_row || quote_ident(substr(part[1], 2, length(part[1]) - 2))
                           ELSE quote_literal(part[1]) END, ' || ' ORDER BY number)
    FROM regexp_matches(template, E'\\{\\{|\\}\\}|\\{[^{}]+\\}|[^{}]+', 'g') WITH ORDINALITY AS found (part, number)
$$;

CREATE OR REPLACE FUNCTION @extschema@.env_view_sql(relation regclass, view_name text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    view_ident text := quote_ident(view_name);
    function_ident text := quote_ident(view_name || '_write');
    selected text;
    inserted text;
    inserted_values text;
    updated text;
    defaults text;
    same_row text;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('relation', relation::oid, 'view_name', view_name));
    SELECT string_agg(format('%1$I = OLD.%1$I', a.attname), ' AND ' ORDER BY a.attnum) INTO same_row
    FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::smallint[])
    WHERE i.indrelid = relation AND i.indisprimary;
    IF same_row IS NULL THEN
        RAISE 'table % has no primary key', relation USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'A row of the view could not be told from others.';
    END IF;
    WITH rule AS (
        SELECT r ->> 'source' AS source, r ->> 'target' AS target, r ->> 'aad' AS aad,
               ARRAY(SELECT t ->> 'column' FROM jsonb_array_elements(coalesce(r -> 'tokens', '[]')) AS t) AS tokens
        FROM envelope_internal.trigger_rules(relation) AS r),
    part AS (
        SELECT a.attnum, quote_ident(a.attname) AS col, quote_ident(rule.target) AS target, rule.source = rule.target AS is_in_place,
               rule.aad, rule.source IS NOT NULL AS is_encrypted, a.attgenerated <> '' AS is_generated,
               a.attidentity = 'a' AS is_always,
               EXISTS (SELECT FROM rule AS r WHERE a.attname = ANY (r.tokens)) AS is_token,
               -- As the trigger encrypts values of the type.
               CASE WHEN base.oid = 'bytea'::regtype THEN '@extschema@.env_decrypt_bytea(%s)'
                    WHEN base.oid = 'jsonb'::regtype THEN '@extschema@.env_decrypt_jsonb(%s)'
                    WHEN base.oid IN ('text'::regtype, 'varchar'::regtype) THEN '@extschema@.env_decrypt(%s)'
                    WHEN base.typcategory = 'S' OR base.typtype = 'e' OR base.oid = 'json'::regtype
                    THEN 'CAST(@extschema@.env_decrypt(%s) AS ' || replace(format_type(base.oid, a.atttypmod), '%', '%%') || ')'
                    ELSE E'CAST(@extschema@.env_decrypt_jsonb(%s) #>> \'{}\' AS ' || replace(format_type(base.oid, a.atttypmod), '%', '%%') || ')' END AS decrypt,
               CASE WHEN a.attidentity <> '' THEN format('nextval(%L)', pg_get_serial_sequence(relation::text, a.attname))
                    ELSE pg_get_expr(d.adbin, d.adrelid) END AS default_value
        FROM pg_attribute AS a
        CROSS JOIN LATERAL (
            WITH RECURSIVE under AS (
                SELECT t.* FROM pg_type AS t WHERE t.oid = a.atttypid
                UNION ALL SELECT t.* FROM under AS u JOIN pg_type AS t ON t.oid = u.typbasetype)
            SELECT * FROM under WHERE typbasetype = 0) AS base
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
        LEFT JOIN rule ON rule.source = a.attname
        WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
          AND NOT EXISTS (SELECT FROM rule AS r WHERE r.target = a.attname AND r.source <> r.target))
    SELECT string_agg(CASE WHEN is_encrypted THEN format(decrypt, concat_ws(', ', target, envelope_internal.aad_expression(aad, ''))) || ' AS ' || col ELSE col END, E',\n    ' ORDER BY attnum),
           string_agg(col, ', ' ORDER BY attnum) FILTER (WHERE NOT is_token AND NOT is_generated),
           string_agg('NEW.' || col, ', ' ORDER BY attnum) FILTER (WHERE NOT is_token AND NOT is_generated),
           string_agg(CASE
               WHEN NOT is_encrypted THEN format('%1$s = NEW.%1$s', col)
               -- A value that stays is not encrypted anew, but for another row.
               WHEN is_in_place THEN format('%1$s = CASE WHEN NEW.%1$s IS DISTINCT FROM OLD.%1$s%2$s THEN NEW.%1$s ELSE %1$s END', col, moved)
               ELSE format('%1$s = CASE WHEN NEW.%1$s IS DISTINCT FROM OLD.%1$s%2$s THEN NEW.%1$s END, %3$s = CASE WHEN NEW.%1$s IS NOT NULL THEN %3$s END',
                           col, moved, target) END, E',\n            ' ORDER BY attnum) FILTER (WHERE NOT is_token AND NOT is_generated AND NOT is_always),
           string_agg(format(E'ALTER VIEW %s ALTER %s SET DEFAULT %s;\n', view_ident, col, default_value), '' ORDER BY attnum)
               FILTER (WHERE default_value IS NOT NULL)
    INTO selected, inserted, inserted_values, updated, defaults
    FROM (SELECT *, CASE WHEN aad IS NULL THEN '' ELSE format(' OR (%s) IS DISTINCT FROM (%s)',
              envelope_internal.aad_expression(aad, 'NEW.'), envelope_internal.aad_expression(aad, 'OLD.')) END AS moved FROM part) AS p;
    RETURN format($sql$CREATE VIEW %1$s%2$s AS
SELECT
    %3$s
FROM %4$s;
%5$s
CREATE FUNCTION %6$s() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO %4$s (%7$s)%8$s
        VALUES (%9$s);
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE %4$s SET
            %10$s
        WHERE %11$s;
        RETURN NEW;
    END IF;
    DELETE FROM %4$s WHERE %11$s;
    RETURN OLD;
END
$body$;

CREATE TRIGGER write INSTEAD OF INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION %6$s();
$sql$,
        view_ident, CASE WHEN current_setting('server_version_num')::integer >= 150000 THEN ' WITH (security_invoker = true)' ELSE '' END,
        selected, relation, defaults, function_ident, inserted,
        CASE WHEN EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attidentity = 'a') THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END,
        inserted_values, updated, same_row);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.aad_expression(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.aad_expression(text, text)
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search;
REVOKE ALL ON FUNCTION @extschema@.env_view_sql(regclass, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_view_sql(regclass, text)
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search;

COMMENT ON FUNCTION envelope_internal.aad_expression(text, text) IS
    'part of env_view_sql: the SQL of a rule''s aad';
COMMENT ON FUNCTION @extschema@.env_view_sql(regclass, text) IS
    'the SQL of a view that decrypts the columns of a table with env_encrypt_trigger, and of its INSTEAD OF trigger; nothing is run';
