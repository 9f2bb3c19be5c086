-- What the planner makes of the functions' labels and costs.
SELECT env_local_create_key('planner');
CREATE TABLE plan_me (id int, name text, value bytea);
INSERT INTO plan_me
SELECT i, 'name', value
FROM (SELECT env_encrypt('a text', 'local:planner') AS value) AS one, generate_series(1, 60000) AS i;
VACUUM ANALYZE plan_me;

-- Cheap conditions first, wherever they stand; headers before plaintext.
EXPLAIN (COSTS OFF)
SELECT * FROM plan_me
WHERE env_decrypt(value) = 'a text' AND env_key_id(value) = 'local:planner' AND id > 5 AND lower(name) = 'name';

-- A scan that decrypts goes parallel where one that does not would not.
EXPLAIN (COSTS OFF) SELECT count(env_decrypt(value)) FROM plan_me;
EXPLAIN (COSTS OFF) SELECT count(value) FROM plan_me;
-- It gives what a session alone does.
SELECT count(*) FROM plan_me WHERE env_decrypt(value) = 'a text';

-- Encrypting stays in the session, and is not done for rows that the statement does not return.
EXPLAIN (COSTS OFF, VERBOSE) SELECT env_encrypt(name, 'local:planner') FROM plan_me ORDER BY id LIMIT 3;

-- An index on a header is used; one on plaintext cannot be made.
CREATE INDEX plan_me_key ON plan_me (env_key_id(value));
ANALYZE plan_me;
EXPLAIN (COSTS OFF) SELECT id FROM plan_me WHERE env_key_id(value) = 'local:another';
CREATE INDEX ON plan_me (env_decrypt(value));

DROP TABLE plan_me;
