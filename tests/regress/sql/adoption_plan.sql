-- What hangs on a plaintext column, and the way for each; and what a CALL says of batches that are too small, of a right that went, and
-- of a key that is not there.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DELETE FROM envelope_internal.rotation_run;
SELECT env_local_create_key('hung_old'), env_local_create_key('hung_new');
CREATE TABLE hung (id int PRIMARY KEY, ssn text NOT NULL UNIQUE CHECK (length(ssn) = 4), short text GENERATED ALWAYS AS (left(ssn, 2)) STORED,
                   other text, enc bytea);
CREATE TABLE hanging (ssn text REFERENCES hung (ssn));
CREATE INDEX hung_lower ON hung (lower(ssn));
CREATE INDEX hung_other ON hung (other);
CREATE VIEW hung_seen AS SELECT id, ssn FROM hung;
CREATE MATERIALIZED VIEW hung_kept AS SELECT ssn FROM hung;
CREATE STATISTICS hung_statistics (mcv) ON ssn, other FROM hung;
CREATE FUNCTION hung_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER audit AFTER UPDATE ON hung FOR EACH ROW EXECUTE FUNCTION hung_audit();
SELECT object, matter FROM env_encrypt_column_plan('hung', 'ssn') ORDER BY matter, object;
SELECT DISTINCT way FROM env_encrypt_column_plan('hung', 'ssn') WHERE matter IN ('UNIQUE', 'FOREIGN KEY', 'index') ORDER BY 1;
SELECT matter FROM env_encrypt_column_plan('hung', 'other') ORDER BY 1;
SELECT * FROM env_encrypt_column_plan('hung', 'missing');
\echo :SQLSTATE
DROP TABLE hung, hanging CASCADE;
DROP FUNCTION hung_audit;

-- A batch of a block is a transaction of its own.
CREATE TABLE hung (id int, value bytea);
ALTER TABLE hung ALTER value SET STORAGE PLAIN;
INSERT INTO hung SELECT i, env_encrypt(repeat('x', 4000), 'local:hung_old') FROM generate_series(1, 1100) AS i;
CALL env_rotate('hung', 'value', 'local:hung_new', batch_blocks => 3, max_seconds => 0);
CALL env_rotate('hung', 'value', 'local:hung_new', batch_blocks => 4, max_seconds => 0);

-- A right that goes in the middle is said to be missing, as one that never was.
CREATE ROLE regress_hung IN ROLE envelope_rotate;
GRANT SELECT, UPDATE ON hung TO regress_hung;
SET ROLE regress_hung;
CALL env_rotate('hung', 'value', 'local:hung_new', max_seconds => 0);
SELECT max(run_id) AS run FROM envelope_internal.rotation_run \gset
RESET ROLE;
REVOKE UPDATE ON hung FROM regress_hung;
SET ROLE regress_hung;
CALL envelope_internal.rotation_loop(:run, format('{"relation": %s, "column": "value", "method": "rewrap", "to_key": "local:hung_new", "max_passes": 2}', 'hung'::regclass::oid)::jsonb);
\echo :SQLSTATE
RESET ROLE;

-- A key that is not there, or not well-formed, leaves no run that has to be given up.
DELETE FROM envelope_internal.rotation_run;
CALL env_rotate('hung', 'value', 'local:hung_missing', 'reencrypt');
\echo :SQLSTATE
CALL env_rotate('hung', 'value', 'no key');
\echo :SQLSTATE
SELECT count(*) FROM envelope_internal.rotation_run WHERE status = 'open';
CALL env_rotate('hung', 'value', 'local:hung_new');
SELECT state, rows_done, phase, pass_percent FROM env_rotation ORDER BY run_id DESC LIMIT 1;
DROP OWNED BY regress_hung;
DROP ROLE regress_hung;
DROP TABLE hung;
