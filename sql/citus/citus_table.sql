-- How Citus keeps a table, which is where env_rotate works another way: 'blocks' where each row has one placement, 'keys' where it
-- has several (reference tables, replicated shards). NULL for every other table. Nothing here depends on Citus: where it is not
-- installed its catalogs are not there. On a worker they name the same tables.
CREATE OR REPLACE FUNCTION envelope_internal.citus_form(relation oid) RETURNS text
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    form text;
BEGIN
    IF to_regclass('pg_catalog.pg_dist_partition') IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE 'SELECT CASE WHEN d.repmodel = ''t'' OR EXISTS (
                 SELECT FROM pg_catalog.pg_dist_shard AS s JOIN pg_catalog.pg_dist_placement AS p USING (shardid)
                 WHERE s.logicalrelid = d.logicalrelid GROUP BY s.shardid HAVING count(*) > 1)
             THEN ''keys'' ELSE ''blocks'' END
             FROM pg_catalog.pg_dist_partition AS d WHERE d.logicalrelid = $1::regclass' INTO form USING relation;
    RETURN form;
END
$$;

-- Whether a table is one of those that hold the rows of a distributed one.
CREATE OR REPLACE FUNCTION envelope_internal.citus_is_shard(relation oid) RETURNS boolean
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_shard boolean := false;
BEGIN
    IF to_regproc('pg_catalog.relation_is_a_known_shard') IS NOT NULL THEN
        EXECUTE 'SELECT pg_catalog.relation_is_a_known_shard($1::regclass)' INTO is_shard USING relation;
    END IF;
    RETURN is_shard;
END
$$;

-- Whether this node is the coordinator, which is also true without Citus.
CREATE OR REPLACE FUNCTION envelope_internal.citus_is_coordinator() RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_coordinator boolean := true;
BEGIN
    IF to_regproc('pg_catalog.citus_is_coordinator') IS NOT NULL THEN
        EXECUTE 'SELECT pg_catalog.citus_is_coordinator()' INTO is_coordinator;
    END IF;
    RETURN is_coordinator;
END
$$;

-- The size of a distributed table: the blocks of its largest shard, and the bytes of all; for form 'keys' its rows take the place of
-- blocks. And a number for where its rows are, which another one takes when a shard is moved, split, copied or rewritten.
-- A statement for each node, whatever the number of shards.
CREATE OR REPLACE FUNCTION envelope_internal.citus_extent(relation oid, OUT blocks bigint, OUT bytes bigint, OUT place oid)
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    form CONSTANT text := envelope_internal.citus_form(relation);
    command text;
    shards bigint;
    missing bigint;
    error text;
    placements text;
BEGIN
    FOR attempt IN 1..20 LOOP
        -- Whole names, whatever the search_path of a session on a worker is: shard_name leaves out the schema "public".
        EXECUTE 'SELECT format($c$SELECT pg_catalog.jsonb_object_agg(s.id, pg_catalog.jsonb_build_array(
                            pg_catalog.pg_relation_size(s.shard, ''main''), pg_catalog.pg_relation_filenode(s.shard)))
                     FROM (SELECT i.id, pg_catalog.to_regclass(pg_catalog.concat(%L::pg_catalog.text, pg_catalog.quote_ident(i.name))) AS shard
                           FROM ROWS FROM (pg_catalog.unnest(%L::pg_catalog.int8[]), pg_catalog.unnest(%L::pg_catalog.text[])) AS i (id, name)) AS s
                     WHERE s.shard IS NOT NULL$c$,
                     (SELECT quote_ident(n.nspname) || ''.'' FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1),
                     array_agg(s.shardid ORDER BY s.shardid),
                     array_agg((SELECT part[cardinality(part)] FROM (SELECT parse_ident(pg_catalog.shard_name(s.logicalrelid, s.shardid)) AS part) AS p)
                               ORDER BY s.shardid)), count(*)
                 FROM pg_catalog.pg_dist_shard AS s WHERE s.logicalrelid = $1::regclass' INTO command, shards USING relation;
        EXECUTE 'WITH answer AS MATERIALIZED (SELECT * FROM pg_catalog.run_command_on_all_nodes($2)),
                 shard AS (
                     SELECT p.shardid, p.placementid, p.groupid, n.nodename, n.nodeport,
                            CASE WHEN a.success THEN NULLIF(a.result, '''')::jsonb -> p.shardid::text END AS found
                     FROM pg_catalog.pg_dist_placement AS p
                     JOIN pg_catalog.pg_dist_shard AS s USING (shardid)
                     LEFT JOIN pg_catalog.pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = ''primary''
                     LEFT JOIN answer AS a USING (nodeid)
                     WHERE s.logicalrelid = $1::regclass)
                 SELECT coalesce(max((found ->> 0)::bigint), 0), coalesce(sum((found ->> 0)::bigint), 0), count(*) FILTER (WHERE found IS NULL),
                        coalesce(string_agg(concat_ws('' '', shardid, placementid, groupid, nodename, nodeport, found ->> 1), '','' ORDER BY shardid, placementid), ''''),
                        (SELECT min(result) FROM answer WHERE NOT success)
                 FROM shard' INTO blocks, bytes, missing, placements, error USING relation, command;
        EXIT WHEN missing = 0;
        -- One has moved since its place was looked up.
        PERFORM pg_sleep(0.1);
    END LOOP;
    IF missing > 0 THEN
        RAISE '% of % shards of % were not found', missing, shards, relation::regclass
            USING ERRCODE = 'connection_failure', DETAIL = error, HINT = 'Are all nodes up?';
    END IF;
    blocks := ceil(blocks::numeric / current_setting('block_size')::bigint);
    place := (hashtextextended(placements, 0) & 4294967295)::oid;
    IF form = 'keys' THEN
        EXECUTE format('SELECT count(*) FROM %s', relation::regclass) INTO blocks;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION
    envelope_internal.citus_form(oid), envelope_internal.citus_is_shard(oid), envelope_internal.citus_is_coordinator(),
    envelope_internal.citus_extent(oid)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.citus_form(oid), envelope_internal.citus_is_shard(oid), envelope_internal.citus_is_coordinator(),
    envelope_internal.citus_extent(oid)
    TO envelope_rotate, envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.citus_form(oid) IS
    'part of env_rotate on Citus: how the rows of a table are placed';
COMMENT ON FUNCTION envelope_internal.citus_is_shard(oid) IS
    'part of env_rotate on Citus: whether a table is a shard';
COMMENT ON FUNCTION envelope_internal.citus_is_coordinator() IS
    'part of env_rotate on Citus: whether this node is the coordinator';
COMMENT ON FUNCTION envelope_internal.citus_extent(oid) IS
    'part of env_rotate on Citus: the blocks, bytes and places of a table';
