-- The runs, and how far each has come: changed in the transaction of each batch, so that a run resumes exactly. Not
-- dumped: block numbers mean nothing elsewhere. A procedure that commits runs with the rights of its caller, so whoever runs a run
-- can also write how far it has come, and nobody else can (see the policies below): who takes a run over begins anew. Nothing in
-- these tables is ever run as SQL, or decides which table or key is used: that comes from the arguments of each CALL.
CREATE TABLE IF NOT EXISTS envelope_internal.rotation_run (
    run_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation       oid NOT NULL,
    column_number  smallint NOT NULL,
    relation_name  text NOT NULL,
    column_name    name NOT NULL,
    method         text NOT NULL CHECK (method IN ('rewrap', 'reencrypt', 'encrypt', 'decrypt')),
    parameters     jsonb NOT NULL,
    -- Not one of the writer's choice: who holds it keeps others from the run.
    lock_key       bigint NOT NULL CONSTRAINT rotation_run_lock_key_check CHECK (lock_key =
        pg_catalog.hashtextextended(pg_catalog.format('envelope_pg rotation of %s.%s', relation, column_number), 0)),
    status         text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'failed rows', 'done', 'abandoned')),
    pass           integer NOT NULL DEFAULT 0,
    leaf           oid NOT NULL DEFAULT 0,
    leaf_file      oid NOT NULL DEFAULT 0,
    leaf_blocks    bigint NOT NULL DEFAULT 0,
    next_block     bigint NOT NULL DEFAULT 0,
    blocks_done    bigint NOT NULL DEFAULT 0,
    blocks_total   bigint NOT NULL DEFAULT 0,
    pass_changed   bigint NOT NULL DEFAULT 0,
    pass_left      bigint NOT NULL DEFAULT 0,
    not_envelopes  bigint NOT NULL DEFAULT 0,
    target_only    bigint NOT NULL DEFAULT 0,
    failures       bigint NOT NULL DEFAULT 0,
    rows_done      bigint NOT NULL DEFAULT 0,
    rows_estimated bigint NOT NULL DEFAULT 0,
    kms_calls      bigint NOT NULL DEFAULT 0,
    seconds        double precision NOT NULL DEFAULT 0,
    pass_seconds   double precision NOT NULL DEFAULT 0,
    started_by     name NOT NULL DEFAULT CURRENT_USER,
    started        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    updated        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished       timestamptz,
    -- Those that pass_seconds is about.
    pass_blocks    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX IF NOT EXISTS rotation_run_open ON envelope_internal.rotation_run (relation, column_number) WHERE status = 'open';

-- All runs can be seen. What is written is about a column that the writer may update, or one that is gone; and others than the
-- role that began a run can only give it up.
ALTER TABLE envelope_internal.rotation_run ENABLE ROW LEVEL SECURITY;

CREATE POLICY seen ON envelope_internal.rotation_run FOR SELECT USING (true);

CREATE POLICY written ON envelope_internal.rotation_run
    USING (started_by = CURRENT_USER AND COALESCE(pg_catalog.has_column_privilege(relation, column_number, 'UPDATE'), true));

CREATE POLICY given_up ON envelope_internal.rotation_run FOR UPDATE
    USING (COALESCE(pg_catalog.has_column_privilege(relation, column_number, 'UPDATE'), true))
    WITH CHECK (status = 'abandoned');

GRANT SELECT,
    INSERT (relation, column_number, relation_name, column_name, method, parameters, lock_key, rows_estimated),
    UPDATE (status, pass, leaf, leaf_file, leaf_blocks, next_block, blocks_done, blocks_total, pass_changed, pass_left, not_envelopes,
            target_only, failures, rows_done, kms_calls, seconds, pass_seconds, pass_blocks, updated, finished)
    ON envelope_internal.rotation_run TO envelope_rotate;

COMMENT ON TABLE envelope_internal.rotation_run IS
    'the runs of env_rotate, env_encrypt_column and env_decrypt_column; see the view env_rotation';
COMMENT ON SEQUENCE envelope_internal.rotation_run_run_id_seq IS
    'numbers of runs';
