-- Rows that VACUUM FULL moves to blocks that an interrupted run has gone by.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
-- Nothing of the tests before.
DELETE FROM envelope_internal.rotation_run;
ALTER TABLE envelope_internal.rotation_run ALTER run_id RESTART;
SELECT env_local_create_key('moved_old'), env_local_create_key('moved_new');
CREATE TABLE moved (id int, value bytea);
ALTER TABLE moved ALTER value SET STORAGE PLAIN;
-- Two rows in a block, and only the last ten of them are to be changed.
INSERT INTO moved SELECT i, env_encrypt(repeat('x', 3000), 'local:moved_' || CASE WHEN i <= 50 THEN 'new' ELSE 'old' END)
FROM generate_series(1, 60) AS i;
CREATE FUNCTION interrupt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'interrupted' USING ERRCODE = 'query_canceled';
END
$$;
CREATE TRIGGER interrupt BEFORE UPDATE ON moved EXECUTE FUNCTION interrupt();
CALL env_rotate('moved', 'value', 'local:moved_new', batch_blocks => 1);
DROP TRIGGER interrupt ON moved;
DELETE FROM moved WHERE id <= 50;
VACUUM FULL moved;
SELECT next_block > pg_relation_size(relation) / current_setting('block_size')::int AS is_behind_the_end, rows_done
FROM envelope_internal.rotation_run;
CALL env_rotate('moved', 'value', 'local:moved_new', batch_blocks => 1);
SELECT state, rows_done, failures FROM env_rotation;
SELECT env_key_id(value), count(*) FROM moved GROUP BY 1;
DROP TABLE moved;
DROP FUNCTION interrupt();
