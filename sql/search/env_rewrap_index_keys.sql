CREATE OR REPLACE FUNCTION @extschema@.env_rewrap_index_keys(to_key text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    latest envelope_internal.index_key;
    moved bytea;
    changed bigint := 0;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('to_key', to_key));
    FOR latest IN
        SELECT DISTINCT ON (k.name, k.version) k.* FROM envelope_internal.index_key AS k ORDER BY k.name, k.version, k.revision DESC
    LOOP
        moved := envelope_internal.dek_stub(envelope_internal.rewrap(latest.stub, to_key));
        IF moved <> latest.stub THEN
            INSERT INTO envelope_internal.index_key (name, version, revision, stub, is_retired)
            VALUES (latest.name, latest.version, latest.revision + 1, moved, latest.is_retired);
            changed := changed + 1;
        END IF;
    END LOOP;
    RETURN changed;
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_rewrap_index_keys(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_rewrap_index_keys(text) TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_rewrap_index_keys(text) IS
    'bring all versions of all index keys under another KMS key; tokens stay as they are; returns how many versions were moved';
