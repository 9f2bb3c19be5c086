-- A run is alive if somebody holds its lock: no flag that a crash could leave behind.
CREATE OR REPLACE VIEW @extschema@.env_rotation AS
    SELECT r.run_id,
           COALESCE(c.oid::pg_catalog.regclass::text, r.relation_name) AS relation,
           r.column_name,
           r.method,
           r.parameters ->> 'from_key' AS from_key,
           r.parameters ->> 'to_key' AS to_key,
           CASE WHEN r.status <> 'open' THEN r.status
                WHEN l.pid IS NOT NULL THEN 'running'
                WHEN a.attname IS DISTINCT FROM r.column_name THEN 'failed'
                ELSE 'interrupted' END AS state,
           l.pid,
           r.pass,
           r.blocks_done,
           r.blocks_total,
           r.rows_done,
           r.rows_estimated,
           pg_catalog.round((r.rows_done / NULLIF(r.seconds, 0))::numeric) AS rows_per_second,
           r.pass_left AS rows_left,
           r.failures,
           r.not_envelopes,
           r.target_only,
           r.kms_calls,
           r.started_by,
           r.started,
           r.updated,
           r.finished,
           -- Of this pass. The last one only reads.
           CASE WHEN r.status = 'open' AND l.pid IS NOT NULL AND r.blocks_done > 0
                THEN r.updated + pg_catalog.make_interval(
                    secs => r.pass_seconds * GREATEST(r.blocks_total - r.blocks_done, 0) / r.blocks_done) END AS eta
    FROM envelope_internal.rotation_run AS r
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = r.relation
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.relation AND a.attnum = r.column_number AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_locks AS l ON r.status = 'open' AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
        AND l.classid = ((r.lock_key >> 32) & 4294967295)::oid AND l.objid = (r.lock_key & 4294967295)::oid
    -- A CALL that failed before it did anything leaves nothing to be seen.
    WHERE l.pid IS NOT NULL OR r.status NOT IN ('open', 'abandoned') OR r.pass > 1 OR r.rows_done > 0 OR r.failures > 0;

GRANT SELECT ON @extschema@.env_rotation TO envelope_rotate, envelope_admin;

COMMENT ON VIEW @extschema@.env_rotation IS
    'every run: what, how far, how fast, and whether it is running';
