-- What cannot be rotated on Citus, before there is a run.
CREATE OR REPLACE FUNCTION envelope_internal.citus_check(root oid, p jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    member oid;
    s record;
BEGIN
    FOR member IN SELECT l.leaf FROM envelope_internal.rotation_leaves(root) AS l WHERE l.kind = 'r' LOOP
        IF EXISTS (SELECT FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam WHERE c.oid = member AND a.amname = 'columnar') THEN
            RAISE '% is columnar', member::regclass USING ERRCODE = 'feature_not_supported',
                DETAIL = 'Rows of columnar tables cannot be updated.',
                HINT = 'Make it a heap table for the run: alter_table_set_access_method(..., ''heap'').';
        END IF;
        CONTINUE WHEN envelope_internal.citus_form(member) IS NULL;
        IF NOT envelope_internal.citus_is_coordinator() THEN
            RAISE '% is a distributed table', member::regclass USING ERRCODE = 'feature_not_supported',
                HINT = 'CALL on the coordinator: it keeps the runs.';
        END IF;
        -- What Citus refuses to push down (an aad_expression that is not IMMUTABLE, a distribution column) it refuses here.
        SELECT * INTO s FROM envelope_internal.citus_statements(member, p);
        IF s.form = 'blocks' THEN
            PERFORM envelope_internal.citus_try(s.update_sql);
        END IF;
    END LOOP;
END
$$;

-- Before all else: to clients Citus hides shards in pg_class.
CREATE OR REPLACE FUNCTION envelope_internal.citus_refuse_shard(root oid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF envelope_internal.citus_is_shard(root) THEN
        RAISE '% is a shard of a distributed table', root::regclass USING ERRCODE = 'feature_not_supported',
            HINT = 'Name the distributed table, on the coordinator: a run on a shard misses its rows when it moves.';
    END IF;
END
$$;

-- On no rows. Not with a fixed search_path: as in the batches, the names in an aad_expression are the caller's.
CREATE OR REPLACE FUNCTION envelope_internal.citus_try(update_sql text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    message text;
BEGIN
    EXECUTE update_sql USING '{"(0,0)"}'::pg_catalog.text[], '{"(0,0)"}'::pg_catalog.text[], '{}'::pg_catalog.bytea[], '{}'::pg_catalog.bytea[];
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
    RAISE 'Citus does not send this to its workers: %', message USING ERRCODE = 'feature_not_supported',
        HINT = 'An aad_expression must be IMMUTABLE: cast its parts, as in ''patient:'' || id::text.';
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.citus_check(oid, jsonb), envelope_internal.citus_refuse_shard(oid), envelope_internal.citus_try(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.citus_check(oid, jsonb), envelope_internal.citus_refuse_shard(oid), envelope_internal.citus_try(text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.citus_check(oid, jsonb) IS
    'part of env_rotate on Citus: an error if a table cannot be rotated';
COMMENT ON FUNCTION envelope_internal.citus_try(text) IS
    'part of env_rotate on Citus: an error if a statement is refused';
COMMENT ON FUNCTION envelope_internal.citus_refuse_shard(oid) IS
    'part of env_rotate on Citus: an error if a table is a shard';
