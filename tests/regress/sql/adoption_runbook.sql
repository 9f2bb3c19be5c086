-- docs/ADOPTION.md, step by step, and what happens where a step is left out.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('patients');
CREATE TABLE patient (id int PRIMARY KEY, diagnosis text) PARTITION BY RANGE (id);
CREATE TABLE patient_1 PARTITION OF patient FOR VALUES FROM (1) TO (151);
CREATE TABLE patient_2 PARTITION OF patient FOR VALUES FROM (151) TO (1000);
INSERT INTO patient SELECT i, 'text ' || i FROM generate_series(1, 300) AS i;
UPDATE patient SET diagnosis = NULL WHERE id = 3;

-- 1. The column.
ALTER TABLE patient ADD diagnosis_enc bytea;
ALTER TABLE patient ADD CHECK (env_is_envelope(diagnosis_enc)) NOT VALID;
ALTER TABLE patient VALIDATE CONSTRAINT patient_diagnosis_enc_check;

-- 2. New rows first.
CREATE FUNCTION patient_encrypt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.diagnosis_enc := env_encrypt(NEW.diagnosis, 'local:patients', '{}', 'patient.diagnosis:' || NEW.id);
    RETURN NEW;
END
$$;
CREATE TRIGGER patient_encrypt BEFORE INSERT OR UPDATE OF diagnosis ON patient
    FOR EACH ROW EXECUTE FUNCTION patient_encrypt();
INSERT INTO patient (id, diagnosis) VALUES (301, 'new');
UPDATE patient SET diagnosis = 'changed' WHERE id = 4;

-- 3. What is there.
CALL env_encrypt_column('patient', 'diagnosis', 'diagnosis_enc', 'local:patients',
                        aad_expression => $$'patient.diagnosis:' || id$$);
SELECT state, rows_done, failures FROM env_rotation;
SELECT tableoid::regclass, count(*), count(diagnosis), count(*) FILTER (WHERE env_decrypt(diagnosis_enc, 'patient.diagnosis:' || id) = diagnosis) AS same
FROM patient GROUP BY 1 ORDER BY 1;
-- A plaintext that the application deletes takes its value along. Without the trigger it does not, and that is said.
UPDATE patient SET diagnosis = NULL WHERE id = 5;
ALTER TABLE patient DISABLE TRIGGER patient_encrypt;
UPDATE patient SET diagnosis = NULL WHERE id IN (6, 7);
ALTER TABLE patient ENABLE TRIGGER patient_encrypt;
CALL env_encrypt_column('patient', 'diagnosis', 'diagnosis_enc', 'local:patients',
                        aad_expression => $$'patient.diagnosis:' || id$$);
SELECT state, rows_done, target_only FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT id, diagnosis_enc IS NULL AS deleted FROM patient WHERE id BETWEEN 5 AND 7 ORDER BY id;
UPDATE patient SET diagnosis_enc = NULL WHERE diagnosis IS NULL;

-- 4. The application reads the encrypted column, and no plaintext is stored any more.
BEGIN;
DROP TRIGGER patient_encrypt ON patient;
CREATE TRIGGER patient_encrypt BEFORE INSERT OR UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "diagnosis", "target": "diagnosis_enc", "key_id": "local:patients", "aad": "patient.diagnosis:{id}"}');
COMMIT;
INSERT INTO patient (id, diagnosis) VALUES (302, 'newer');
SELECT diagnosis, env_decrypt(diagnosis_enc, 'patient.diagnosis:' || id) FROM patient WHERE id IN (5, 302) ORDER BY id;

-- 5. With this trigger the plaintext cannot stay where it is.
CALL env_encrypt_column('patient', 'diagnosis', 'diagnosis_enc', 'local:patients',
                        aad_expression => $$'patient.diagnosis:' || id$$);
\echo :SQLSTATE
SELECT count(*) AS runs FROM env_rotation;
CALL env_encrypt_column('patient', 'diagnosis', 'diagnosis_enc', 'local:patients',
                        aad_expression => $$'patient.diagnosis:' || id$$, clear_source => true);
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 1;
SELECT count(*), count(diagnosis), count(env_decrypt(diagnosis_enc, 'patient.diagnosis:' || id)) FROM patient;

-- A rotation goes past the trigger: what is encrypted is left alone.
SELECT env_local_create_key('patients_new');
CALL env_rotate('patient', 'diagnosis_enc', 'local:patients_new');
SELECT env_key_id(diagnosis_enc), count(env_decrypt(diagnosis_enc, 'patient.diagnosis:' || id)) FROM patient GROUP BY 1 ORDER BY 1;
CALL env_rotate('patient', 'diagnosis_enc', 'local:patients', 'reencrypt', aad_expression => $$'patient.diagnosis:' || id$$);
SELECT env_key_id(diagnosis_enc), count(env_decrypt(diagnosis_enc, 'patient.diagnosis:' || id)) FROM patient GROUP BY 1 ORDER BY 1;
SELECT state, rows_done, failures FROM env_rotation ORDER BY run_id DESC LIMIT 2;

-- And back: not with the trigger, which would encrypt it again.
CALL env_decrypt_column('patient', 'diagnosis_enc', 'diagnosis', aad_expression => $$'patient.diagnosis:' || id$$);
\echo :SQLSTATE
ALTER TABLE patient DISABLE TRIGGER patient_encrypt;
CALL env_decrypt_column('patient', 'diagnosis_enc', 'diagnosis', aad_expression => $$'patient.diagnosis:' || id$$);
SELECT count(*), count(diagnosis) FROM patient WHERE env_opens_to(diagnosis_enc, diagnosis, 'patient.diagnosis:' || id);

-- The end.
DROP TRIGGER patient_encrypt ON patient;
ALTER TABLE patient DROP diagnosis;
DROP TABLE patient;
-- A trigger that another column's UPDATE does not fire, or with a name that is not ASCII, or with another target.
CREATE TABLE patient (id int, "diagnosis ä\000" text, enc bytea, other bytea);
INSERT INTO patient VALUES (1, 'text');
CREATE TRIGGER t BEFORE UPDATE OF id ON patient FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "diagnosis ä\\000", "target": "enc", "key_id": "local:patients"}');
CALL env_encrypt_column('patient', 'diagnosis ä\000', 'enc', 'local:patients');
SELECT env_decrypt(enc), "diagnosis ä\000" FROM patient;
DROP TRIGGER t ON patient;
CREATE TRIGGER t BEFORE UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "diagnosis ä\\000", "target": "enc", "key_id": "local:patients"}');
CALL env_encrypt_column('patient', 'diagnosis ä\000', 'other', 'local:patients', clear_source => true);
\echo :SQLSTATE
DROP TABLE patient;
DROP FUNCTION patient_encrypt();
