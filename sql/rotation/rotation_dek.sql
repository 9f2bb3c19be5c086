-- Data keys that a reencrypting run has met: those that it replaces, and those that it seals with.
CREATE TABLE IF NOT EXISTS envelope_internal.rotation_dek (
    run_id bigint NOT NULL REFERENCES envelope_internal.rotation_run ON DELETE CASCADE,
    dek_id bytea NOT NULL,
    key_id text NOT NULL,
    is_new boolean NOT NULL,
    PRIMARY KEY (run_id, dek_id)
);

ALTER TABLE envelope_internal.rotation_dek ENABLE ROW LEVEL SECURITY;

CREATE POLICY seen ON envelope_internal.rotation_dek FOR SELECT USING (true);

CREATE POLICY written ON envelope_internal.rotation_dek
    USING (EXISTS (SELECT FROM envelope_internal.rotation_run AS r WHERE r.run_id = rotation_dek.run_id AND r.started_by = CURRENT_USER
                   AND COALESCE(pg_catalog.has_column_privilege(r.relation, r.column_number, 'UPDATE'), true)));

GRANT SELECT, INSERT, UPDATE (is_new) ON envelope_internal.rotation_dek TO envelope_rotate;

COMMENT ON TABLE envelope_internal.rotation_dek IS
    'the data keys that reencrypting runs have met';
