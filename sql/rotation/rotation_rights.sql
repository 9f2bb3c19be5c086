-- What a batch takes, and what can have changed since the batch before.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_rights(leaf oid, p jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET row_security = on AS $$
DECLARE
    rotated CONSTANT name := p ->> 'column';
    rule name;
BEGIN
    IF row_security_active(leaf) THEN
        RAISE 'row-level security hides rows of % from role %', leaf::regclass, current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'Use a role with BYPASSRLS, or the owner of the table.';
    END IF;
    IF NOT has_table_privilege(leaf, 'SELECT')
        OR NOT has_column_privilege(leaf, rotated::text, 'UPDATE')
        OR ((p ->> 'clear_source')::boolean AND NOT has_column_privilege(leaf, p ->> 'source', 'UPDATE')) THEN
        RAISE 'role % needs SELECT and UPDATE on %', current_user, leaf::regclass
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'Batches go to each partition itself, so a grant on the partitioned table is not enough.';
    END IF;
    SELECT rulename INTO rule FROM pg_rewrite WHERE ev_class = leaf AND ev_type = '2' AND ev_enabled <> 'D' LIMIT 1;
    IF FOUND THEN
        RAISE 'rule "%" of % changes what an UPDATE does', rule, leaf::regclass
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'ALTER TABLE ... DISABLE RULE until the run is done.';
    END IF;
    PERFORM envelope_internal.rotation_trust(leaf);
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_rights(oid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_rights(oid, jsonb) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_rights(oid, jsonb) IS
    'part of env_rotate: an error if the rows of a table cannot be changed, or must not be';
