-- Whatever isolation level transactions begin with, batches are READ COMMITTED.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('isolation_a'), env_local_create_key('isolation_b');
CREATE TABLE isolated (id int, plain text, value bytea, level text);
INSERT INTO isolated SELECT i, NULL, env_encrypt('text ' || i, 'local:isolation_a') FROM generate_series(1, 200) AS i;
CREATE FUNCTION note_level() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.level := current_setting('transaction_isolation');
    RETURN NEW;
END
$$;
CREATE TRIGGER note_level BEFORE UPDATE ON isolated FOR EACH ROW EXECUTE FUNCTION note_level();
SET default_transaction_isolation = 'repeatable read';
CALL env_rotate('isolated', 'value', 'local:isolation_b', batch_blocks => 1, max_rows_per_second => 10000);
SELECT level, env_key_id(value), count(*) FROM isolated GROUP BY 1, 2;
CALL env_decrypt_column('isolated', 'value', 'plain');
SELECT level, count(plain) FROM isolated GROUP BY 1;
UPDATE isolated SET level = NULL;
SET default_transaction_isolation = 'serializable';
CALL env_rotate('isolated', 'value', 'local:isolation_a', 'reencrypt', batch_blocks => 1, max_rows_per_second => 10000);
SELECT level, env_key_id(value), count(*) FROM isolated GROUP BY 1, 2;
UPDATE isolated SET value = NULL;
CALL env_encrypt_column('isolated', 'plain', 'value', 'local:isolation_b', batch_blocks => 1);
SELECT level, env_key_id(value), count(*) FROM isolated GROUP BY 1, 2;
RESET default_transaction_isolation;
DROP TABLE isolated;
DROP FUNCTION note_level();
