-- Retires the current data keys of a key on the other nodes, where sessions write to the same table.
CREATE OR REPLACE FUNCTION envelope_internal.citus_rotate_dek(root oid, key_id text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    error text;
BEGIN
    IF envelope_internal.citus_form(root) IS NOT NULL THEN
        EXECUTE 'SELECT min(result) FROM pg_catalog.run_command_on_workers($1) WHERE NOT success'
            INTO error USING format('SELECT envelope_internal.rotate_dek(%L)', key_id);
        IF error IS NOT NULL THEN
            RAISE 'the current data keys of a node could not be retired' USING ERRCODE = 'connection_failure', DETAIL = error,
                HINT = 'All nodes have to be up, and the key has to be allowed there.';
        END IF;
    END IF;
END
$$;

-- The same for the keys that rotation_due has retired here since, whatever nodes say to it.
CREATE OR REPLACE FUNCTION envelope_internal.citus_retire(retired_before text[], retired text[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    key_id text;
BEGIN
    FOR key_id IN SELECT unnest($2) EXCEPT SELECT unnest($1) LOOP
        EXECUTE 'SELECT FROM pg_catalog.run_command_on_workers($1)' USING format('SELECT envelope_internal.rotate_dek(%L)', key_id);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.citus_rotate_dek(oid, text), envelope_internal.citus_retire(text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.citus_rotate_dek(oid, text), envelope_internal.citus_retire(text[], text[]) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.citus_rotate_dek(oid, text) IS
    'part of env_rotate on Citus: have new current data keys made on all nodes';
COMMENT ON FUNCTION envelope_internal.citus_retire(text[], text[]) IS
    'part of env_rotate on Citus: have new current data keys made on all nodes for the keys of old values';
