CREATE OR REPLACE VIEW @extschema@.env_rotation_failure AS
    SELECT f.failure_id, f.run_id, f.relation, f.tid, f.dek_id, f.row_count, f.sqlstate, f.message
    FROM envelope_internal.rotation_failure AS f;

GRANT SELECT ON @extschema@.env_rotation_failure TO envelope_rotate, envelope_admin;

COMMENT ON VIEW @extschema@.env_rotation_failure IS
    'rows that runs have left alone, and why';
