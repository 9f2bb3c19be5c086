-- Rotations that somebody has to look at, and index keys that are nowhere else.
CREATE OR REPLACE FUNCTION envelope_internal.check_runs()
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'warning', 'failed_rows', format('run %s', r.run_id), format('%s rows of %s could not be rotated', r.failures, r.relation),
           format('SELECT %s(%s); -- or mend the rows that env_rotation_failure shows, and CALL it again', '@extschema@.env_rotation_abandon', r.run_id)
    FROM @extschema@.env_rotation AS r WHERE r.state = 'failed rows'
    UNION ALL
    SELECT 'notice', 'open_run', format('run %s', r.run_id), format('it rests since %s at %s rows of %s', r.updated, r.rows_done, r.relation),
           format('SELECT %s(%s); -- or the same CALL again, which goes on', '@extschema@.env_rotation_abandon', r.run_id)
    FROM @extschema@.env_rotation AS r
    WHERE r.finished IS NULL AND r.state NOT IN ('failed rows', 'running') AND r.updated < now() - interval '1 day'
    UNION ALL
    SELECT 'warning', 'index_key_backup', 'server',
           format('index keys were made, the last one at %s, and this server archives no WAL: without a dump or a backup of the database they are lost with it, and with them searches', max(k.created)),
           'ALTER SYSTEM SET archive_mode = ''on''; -- with an archive_command, and a restart; or leave it at regular pg_dump'
    FROM @extschema@.env_index_key AS k
    WHERE current_setting('archive_mode') = 'off' AND NOT pg_is_in_recovery()
      AND NOT EXISTS (SELECT FROM pg_replication_slots)
    HAVING count(*) > 0
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_runs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_runs() TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_runs() IS
    'part of env_check: rotations and index keys';
