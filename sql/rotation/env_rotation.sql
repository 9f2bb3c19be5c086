-- A run is alive if somebody holds its lock: no flag that a crash could leave behind. The locks of the primary are not seen on a
-- standby.
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
                WHEN pg_catalog.pg_is_in_recovery() THEN 'not known on a standby'
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
           CASE WHEN e.is_live AND e.pass_seconds_left IS NOT NULL
                THEN r.updated + pg_catalog.make_interval(secs => e.pass_seconds_left + e.last_pass_seconds) END AS eta,
           pg_catalog.current_database() AS datname,
           r.relation AS relid,
           CASE WHEN NOT e.is_live THEN NULL
                WHEN r.pass = 0 THEN 'initializing'
                WHEN s.wait_event = 'PgSleep' THEN 'throttled'
                WHEN r.pass > 1 AND r.pass_changed = 0 THEN 'looking for what is left'
                ELSE 'changing rows' END AS phase,
           NULLIF(r.leaf, 0) AS current_relid,
           NULLIF(r.leaf_blocks, 0) AS current_blocks_total,
           CASE WHEN r.leaf_blocks > 0 THEN r.next_block END AS current_blocks_done,
           pg_catalog.round(100.0 * LEAST(r.blocks_done, r.blocks_total) / NULLIF(r.blocks_total, 0), 1) AS pass_percent
    FROM envelope_internal.rotation_run AS r
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = r.relation
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.relation AND a.attnum = r.column_number AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_locks AS l ON r.status = 'open' AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
        AND l.classid = ((r.lock_key >> 32) & 4294967295)::oid AND l.objid = (r.lock_key & 4294967295)::oid
    LEFT JOIN pg_catalog.pg_stat_activity AS s ON s.pid = l.pid
    -- Of the whole run: what is left of this pass, and the one behind it, which reads, and mostly takes a twelfth of the time.
    CROSS JOIN LATERAL (SELECT
        r.status = 'open' AND l.pid IS NOT NULL AS is_live,
        r.pass_seconds / NULLIF(r.pass_blocks, 0) * GREATEST(r.blocks_total - r.blocks_done, 0) AS pass_seconds_left,
        CASE WHEN r.pass_changed > 0 THEN 0.08 * r.pass_seconds / NULLIF(r.pass_blocks, 0) * r.blocks_total ELSE 0 END AS last_pass_seconds
    ) AS e
    -- A CALL that failed before it did anything leaves nothing to be seen.
    WHERE l.pid IS NOT NULL OR r.status NOT IN ('open', 'abandoned') OR r.pass > 1 OR r.rows_done > 0 OR r.failures > 0;

GRANT SELECT ON @extschema@.env_rotation TO envelope_rotate, envelope_admin, pg_monitor;

COMMENT ON VIEW @extschema@.env_rotation IS
    'every run: what, how far, how fast, and whether it is running';
