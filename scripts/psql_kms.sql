-- What "make psql-kms" offers: the roles and tables of README. The tables are in a schema behind public in the search_path, so
-- that README's own CREATE TABLE works, too.
CREATE EXTENSION envelope_pg;
SELECT env_local_create_key('dev');
CREATE ROLE app_writer LOGIN IN ROLE envelope_encrypt;
CREATE ROLE support LOGIN IN ROLE envelope_decrypt;

CREATE SCHEMA example;
ALTER DATABASE postgres SET search_path = "$user", public, example;
SET search_path = "$user", public, example;
CREATE TABLE example.patient (
    id        int PRIMARY KEY,
    diagnosis bytea CHECK (env_is_envelope(diagnosis)),
    note      text,
    admitted  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO patient (id, diagnosis, note) VALUES
    (1, env_encrypt('asthma', 'alias/patients'), 'inhaler at hand'),
    (2, env_encrypt('migraine', 'alias/patients'), NULL),
    (3, env_encrypt('gout', 'alias/patients', '{}', 'patient.diagnosis:3'), 'asks for a second opinion');
GRANT CREATE, USAGE ON SCHEMA public TO app_writer;
GRANT USAGE ON SCHEMA example TO app_writer, support;
GRANT SELECT ON patient TO support;
GRANT SELECT, INSERT, UPDATE, DELETE ON patient TO app_writer;
