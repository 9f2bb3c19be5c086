CREATE OR REPLACE FUNCTION @extschema@.env_rotate_index_key(name text) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    latest record;
    hazard text;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('name', env_rotate_index_key.name));
    PERFORM pg_advisory_xact_lock(hashtextextended('envelope_pg index key ' || env_rotate_index_key.name, 0));
    SELECT k.version, k.stub INTO latest FROM envelope_internal.index_key AS k WHERE k.name = env_rotate_index_key.name
    ORDER BY k.version DESC, k.revision DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE 'no such index key' USING ERRCODE = 'undefined_object', HINT = 'env_create_index_key(name, key_id) makes one.';
    END IF;
    -- The old token of a value and its new one are different: a UNIQUE index would let the value in twice.
    SELECT format('%s.%I', r.relation::regclass, a.attname) INTO hazard
    FROM envelope_internal.token_rules() AS r
    JOIN pg_attribute AS a ON a.attrelid = r.relation AND a.attname = r.token ->> 'column'
    JOIN pg_index AS i ON i.indrelid = r.relation AND i.indisunique AND a.attnum = ANY (i.indkey::smallint[])
    WHERE r.token ->> 'index' = env_rotate_index_key.name AND NOT r.token ? 'version' LIMIT 1;
    IF FOUND THEN
        RAISE 'a UNIQUE index is on tokens of whatever version is the latest' USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('Column: %s.', hazard),
            HINT = 'Give the rule of its trigger a "version" first; docs/SEARCH.md has the steps.';
    END IF;
    PERFORM envelope_internal.index_key_add(env_rotate_index_key.name, latest.version + 1, envelope_internal.key_id(latest.stub),
        envelope_internal.encryption_context(latest.stub) - ARRAY['purpose', 'name', 'version', 'id']);
    RETURN latest.version + 1;
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_rotate_index_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_rotate_index_key(text) TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_rotate_index_key(text) IS
    'give an index key a new version, which makes the tokens from now on; returns it';
