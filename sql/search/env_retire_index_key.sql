CREATE OR REPLACE FUNCTION @extschema@.env_retire_index_key(name text, version integer) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    latest envelope_internal.index_key;
    used text;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('name', env_retire_index_key.name, 'version', env_retire_index_key.version));
    PERFORM pg_advisory_xact_lock(hashtextextended('envelope_pg index key ' || env_retire_index_key.name, 0));
    SELECT * INTO latest FROM envelope_internal.index_key AS k
    WHERE k.name = env_retire_index_key.name AND k.version = env_retire_index_key.version ORDER BY k.revision DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE 'no such version of an index key' USING ERRCODE = 'undefined_object',
            HINT = 'The view env_index_key shows the versions.';
    END IF;
    IF latest.is_retired THEN
        RETURN;
    END IF;
    SELECT string_agg(DISTINCT format('%s.%I', r.relation::regclass, r.token ->> 'column'), ', ') INTO used
    FROM envelope_internal.token_rules() AS r
    WHERE r.token ->> 'index' = latest.name
      AND (r.token ->> 'version' = latest.version::text
           OR NOT r.token ? 'version' AND NOT EXISTS (
               SELECT FROM envelope_internal.index_key AS k WHERE k.name = latest.name AND k.version > latest.version));
    IF used IS NOT NULL THEN
        RAISE 'triggers make tokens of this version' USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('Columns: %s.', used),
            HINT = 'Change their rules, or call env_rotate_index_key first.';
    END IF;
    INSERT INTO envelope_internal.index_key (name, version, revision, stub, is_retired)
    VALUES (latest.name, latest.version, latest.revision + 1, latest.stub, true);
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_retire_index_key(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_retire_index_key(text, integer) TO envelope_admin;

COMMENT ON FUNCTION @extschema@.env_retire_index_key(text, integer) IS
    'end the use of a version of an index key: it makes no tokens any more, for values or for searches';
