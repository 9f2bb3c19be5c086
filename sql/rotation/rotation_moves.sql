-- What env_encrypt_trigger moves from column to column when a column of a table is updated.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_moves(relation oid, updated name) RETURNS TABLE (trigger name, source text, target text)
    LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tgname, rule ->> 'source', rule ->> 'target'
    FROM pg_trigger AS t
    JOIN pg_attribute AS a ON a.attrelid = t.tgrelid AND a.attname = updated
    -- A zero byte is behind each argument: in hex with a space behind each byte.
    CROSS JOIN unnest(string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', chr(92) || '& ', 'g'), '00 ')) AS argument
    CROSS JOIN LATERAL CAST(convert_from(decode(argument, 'hex'), getdatabaseencoding()) AS jsonb) AS rule
    WHERE t.tgrelid = relation AND t.tgfoid = '@extschema@.env_encrypt_trigger()'::regprocedure AND t.tgenabled <> 'D'
      AND t.tgtype & 16 <> 0 AND (cardinality(t.tgattr::smallint[]) = 0 OR a.attnum = ANY (t.tgattr))
      AND argument <> '' AND rule ->> 'source' <> rule ->> 'target'
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_moves(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_moves(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_moves(oid, name) IS
    'part of env_rotate: the columns that triggers of env_encrypt_trigger move';
