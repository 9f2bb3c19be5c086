-- Whether a table is in the tree of another one, or is that one, and stays so for this transaction. One that is dropped or
-- detached in the middle of a run is none of its business any more.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_hold(relation oid, leaf oid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_held boolean := false;
BEGIN
    -- From the leaf up: a tree can have thousands of them.
    WHILE EXISTS (
        WITH RECURSIVE ancestor (member) AS (
            SELECT oid FROM pg_class WHERE oid = $2 AND relkind IN ('r', 'p')
            UNION
            SELECT inhparent FROM pg_inherits JOIN ancestor ON inhrelid = member
        )
        SELECT FROM ancestor WHERE member = $1
    ) LOOP
        IF is_held THEN
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
    RETURN false;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_hold(oid, oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_hold(oid, oid) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_hold(oid, oid) IS
    'part of env_rotate: whether a table is one of the run, and stays one for a batch';
