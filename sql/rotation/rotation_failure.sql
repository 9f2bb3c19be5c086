-- Rows of the current or last pass that were left alone, at most 1000 a run. With tid NULL: all of a
-- data key; without that, too: the rest.
CREATE TABLE IF NOT EXISTS envelope_internal.rotation_failure (
    failure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     bigint NOT NULL REFERENCES envelope_internal.rotation_run ON DELETE CASCADE,
    relation   oid NOT NULL,
    tid        tid,
    dek_id     bytea,
    row_count  bigint NOT NULL,
    sqlstate   text NOT NULL,
    message    text NOT NULL
);

CREATE INDEX IF NOT EXISTS rotation_failure_run ON envelope_internal.rotation_failure (run_id);

ALTER TABLE envelope_internal.rotation_failure ENABLE ROW LEVEL SECURITY;

CREATE POLICY seen ON envelope_internal.rotation_failure FOR SELECT USING (true);

CREATE POLICY written ON envelope_internal.rotation_failure
    USING (EXISTS (SELECT FROM envelope_internal.rotation_run AS r WHERE r.run_id = rotation_failure.run_id AND r.started_by = CURRENT_USER
                   AND COALESCE(pg_catalog.has_column_privilege(r.relation, r.column_number, 'UPDATE'), true)));

GRANT SELECT, INSERT, DELETE, UPDATE (row_count) ON envelope_internal.rotation_failure TO envelope_rotate;

COMMENT ON TABLE envelope_internal.rotation_failure IS
    'rows that runs have left alone; see the view env_rotation_failure';
COMMENT ON SEQUENCE envelope_internal.rotation_failure_failure_id_seq IS
    'numbers of failures';
