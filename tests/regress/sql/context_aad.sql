-- The encryption context is stored and part of the data key's identity; the aad is not stored and binds a value to its row.
\set SHOW_CONTEXT never
SELECT env_local_create_key('context');

-- Stored in canonical form: the order of the keys does not matter.
SELECT env_encryption_context(env_encrypt('x', 'local:context', '{"tenant":"7","app":"shop"}'));
SELECT env_encryption_context(env_encrypt('x', 'local:context')) AS without,
       env_encryption_context(env_encrypt('x', 'local:context', '{}')) AS empty;
SELECT env_dek_id(env_encrypt('x', 'local:context', '{"tenant":"7","app":"shop"}'))
     = env_dek_id(env_encrypt('y', 'local:context', '{"app":"shop","tenant":"7"}')) AS same_context_same_dek;
SELECT env_dek_id(env_encrypt('x', 'local:context', '{"tenant":"7"}'))
     = env_dek_id(env_encrypt('x', 'local:context', '{"tenant":"8"}')) AS other_context_same_dek;
SELECT env_dek_id(env_encrypt('x', 'local:context'))
     = env_dek_id(env_encrypt('x', 'local:context', '{}')) AS no_context_is_the_empty_one;
SELECT env_encryption_context(env_encrypt('x', 'local:context', '{"k\u00e9y":"v \u20ac","":""}')) = '{"k\u00e9y":"v \u20ac","":""}' AS unicode_and_empty;

-- The context cannot be changed in the value: here one byte of it, "shop" to "shoq".
SELECT env_encrypt('x', 'local:context', '{"app":"shop"}') AS value \gset
SELECT env_decrypt(:'value');
SELECT env_decrypt(overlay(:'value'::bytea PLACING 'shoq'::bytea FROM position('shop'::bytea IN :'value'::bytea)));
\echo :SQLSTATE

-- aad
CREATE TABLE patient (id int PRIMARY KEY, diagnosis bytea);
INSERT INTO patient
SELECT id, env_encrypt('diagnosis ' || id, 'local:context', '{}', 'patient.diagnosis:' || id)
FROM generate_series(1, 3) AS id;
SELECT id, env_decrypt(diagnosis, 'patient.diagnosis:' || id) FROM patient ORDER BY id;
SELECT count(DISTINCT env_dek_id(diagnosis)) AS deks FROM patient;

-- A value copied to another row does not open there.
UPDATE patient SET diagnosis = (SELECT diagnosis FROM patient WHERE id = 1) WHERE id = 2;
SELECT env_decrypt(diagnosis, 'patient.diagnosis:' || id) FROM patient WHERE id = 2;
\echo :SQLSTATE
-- Nor without its aad, nor with an empty one.
SELECT env_decrypt(diagnosis) FROM patient WHERE id = 1;
\echo :SQLSTATE
SELECT env_decrypt(diagnosis, '') FROM patient WHERE id = 1;
\echo :SQLSTATE
-- Nor does a value without an aad open with one.
SELECT env_decrypt(env_encrypt('x', 'local:context'), 'patient.diagnosis:1');
\echo :SQLSTATE
-- The flag in the value cannot be cleared: it is authenticated.
SELECT env_decrypt(set_byte(diagnosis, 5, 0)) FROM patient WHERE id = 1;
\echo :SQLSTATE
-- The empty aad is an aad.
SELECT env_decrypt(env_encrypt('x', 'local:context', '{}', ''), '');
-- The aad is not in the value.
SELECT position('patient'::bytea IN diagnosis) FROM patient WHERE id = 1;
DROP TABLE patient;
