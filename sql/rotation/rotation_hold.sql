-- Whether a table is in the tree of another one, or is that one, and stays so for this transaction. One that is dropped or
-- detached in the middle of a run is none of its business any more.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_hold(relation oid, leaf oid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_held boolean := false;
    members oid[];
BEGIN
    LOOP
        -- From the leaf up, since a tree can have thousands of them, and level by level: a recursive query reads all of pg_inherits.
        members := ARRAY(SELECT oid FROM pg_class WHERE oid = $2 AND relkind IN ('r', 'p'));
        WHILE members <> '{}' AND $1 <> ALL (members) LOOP
            members := ARRAY(SELECT DISTINCT inhparent FROM pg_inherits WHERE inhrelid = ANY (members));
        END LOOP;
        IF members = '{}' THEN
            RETURN false;
        ELSIF is_held THEN
            RETURN true;
        END IF;
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', $2::regclass);
            is_held := true;
        EXCEPTION
            -- Gone or renamed while it waited for the lock.
            WHEN undefined_table OR invalid_schema_name THEN NULL;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_hold(oid, oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_hold(oid, oid) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_hold(oid, oid) IS
    'part of env_rotate: whether a table is one of the run, and stays one for a batch';
