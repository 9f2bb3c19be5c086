-- What triggers of env_encrypt_trigger are told: the rules of a table's columns, and the token columns of all tables.
CREATE OR REPLACE FUNCTION envelope_internal.trigger_rules(relation oid) RETURNS SETOF jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CAST(convert_from(decode(argument, 'hex'), getdatabaseencoding()) AS jsonb)
    FROM pg_trigger AS t
    -- A zero byte is behind each argument: in hex with a space behind each byte.
    CROSS JOIN unnest(string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', E'\\& ', 'g'), '00 ')) AS argument
    WHERE t.tgrelid = relation AND t.tgfoid = '@extschema@.env_encrypt_trigger()'::regprocedure AND argument <> ''
      -- The trigger of a partition is the one of its table.
      AND NOT t.tgisinternal
$$;

CREATE OR REPLACE FUNCTION envelope_internal.token_rules() RETURNS TABLE (relation oid, rule jsonb, token jsonb)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    -- Whatever somebody has written into a trigger of a table of his is no matter of other tables.
    SELECT r.relation, r.rule, token
    FROM envelope_internal.check_rules() AS r
    CROSS JOIN jsonb_array_elements(CASE WHEN jsonb_typeof(r.rule -> 'tokens') = 'array' THEN r.rule -> 'tokens' ELSE '[]' END) AS token
$$;

REVOKE ALL ON FUNCTION envelope_internal.trigger_rules(oid), envelope_internal.token_rules() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.trigger_rules(oid), envelope_internal.token_rules()
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search;

COMMENT ON FUNCTION envelope_internal.trigger_rules(oid) IS
    'the rules that triggers of a table are told';
COMMENT ON FUNCTION envelope_internal.token_rules() IS
    'the token columns that triggers fill, of all tables';
