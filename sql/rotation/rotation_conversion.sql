-- How the plaintext of a column of some type becomes that of a value, and back: the type that the value holds, and two patterns of
-- expressions. All NULL for a type whose text depends on the locale or on names of the catalog. As the trigger has it.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_conversion(
    relation oid, column_name name, OUT value_type text, OUT to_plaintext text, OUT from_plaintext text
) LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (type) AS (
        SELECT atttypid FROM pg_attribute WHERE attrelid = relation AND attname = column_name AND NOT attisdropped
        UNION ALL
        SELECT typbasetype FROM pg_type JOIN base ON oid = type WHERE typtype = 'd'
    ), found AS (
        SELECT t.oid AS type, format('%I.%I', n.nspname, t.typname) AS name,
               CASE WHEN t.oid = 'bytea'::regtype THEN 'bytea'
                    WHEN t.oid = 'jsonb'::regtype THEN 'jsonb'
                    WHEN t.typcategory = 'S' OR t.typtype = 'e' OR t.oid = 'json'::regtype THEN 'text'
                    WHEN t.typtype <> 'p' AND NOT coalesce(nullif(t.typelem, 0), t.oid) = ANY (ARRAY['money'::regtype,
                        'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype, 'regclass'::regtype,
                        'regtype'::regtype, 'regrole'::regtype, 'regnamespace'::regtype, 'regconfig'::regtype,
                        'regdictionary'::regtype, 'regcollation'::regtype]::oid[]) THEN 'json'
               END AS kind
        FROM base JOIN pg_type AS t ON t.oid = base.type JOIN pg_namespace AS n ON n.oid = t.typnamespace
        WHERE t.typtype <> 'd'
    )
    SELECT CASE kind WHEN 'json' THEN 'jsonb' ELSE kind END,
           CASE kind WHEN 'json' THEN 'envelope_internal.to_jsonb(%s)' ELSE 'CAST(%s AS pg_catalog.' || kind || ')' END,
           CASE WHEN kind = 'json' THEN 'CAST((%s OPERATOR(pg_catalog.#>>) ''{}'') AS ' || replace(name, '%', '%%') || ')'
                -- The assignment to the column cuts blanks as it should, and nothing else.
                WHEN kind = 'text' AND type NOT IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
                    THEN 'CAST(%s AS ' || replace(name, '%', '%%') || ')'
                ELSE '%s' END
    FROM found
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_conversion(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_conversion(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_conversion(oid, name) IS
    'part of env_rotate: how the plaintext of a column becomes that of a value, and back';
