-- What a plan says of the WAL, and what the run then writes: within a quarter, for rows of some hundred bytes, values in a TOAST
-- table, several indexes on random keys, and a fillfactor that leaves room for the new versions.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
ALTER SYSTEM SET full_page_writes = on;
ALTER SYSTEM SET autovacuum = off;
SELECT pg_reload_conf();
SELECT env_local_create_key('wal_old'), env_local_create_key('wal_new');
CREATE TABLE wal_small (id bigint PRIMARY KEY, value bytea);
INSERT INTO wal_small SELECT i, env_encrypt('text of row ' || i, 'local:wal_old') FROM generate_series(1, 20000) AS i;
CREATE TABLE wal_toast (id bigint PRIMARY KEY, value bytea);
INSERT INTO wal_toast
SELECT i, env_encrypt((SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 200) AS j), 'local:wal_old')
FROM generate_series(1, 2000) AS i;
CREATE TABLE wal_indexes (id uuid PRIMARY KEY, name text, number int, value bytea);
CREATE INDEX ON wal_indexes (name);
CREATE INDEX ON wal_indexes (number);
INSERT INTO wal_indexes
SELECT md5(i::text)::uuid, md5(i::text || 'n'), i % 1000, env_encrypt('text of row ' || i, 'local:wal_old') FROM generate_series(1, 20000) AS i;
CREATE TABLE wal_room (LIKE wal_indexes INCLUDING ALL) WITH (fillfactor = 45);
INSERT INTO wal_room SELECT * FROM wal_indexes;
CREATE TABLE wal_ratio (name text, checkpointed boolean, planned numeric, written numeric);
CREATE PROCEDURE wal_of(name text, checkpointed boolean, to_key text) LANGUAGE plpgsql AS $$
DECLARE
    planned bigint;
    before pg_lsn;
BEGIN
    SELECT wal_bytes INTO planned FROM env_rotation_plan(name::regclass, 'value', to_key);
    before := pg_current_wal_insert_lsn();
    CALL env_rotate(name::regclass, 'value', to_key);
    INSERT INTO wal_ratio VALUES (name, checkpointed, planned, pg_current_wal_insert_lsn() - before);
    COMMIT;
END
$$;
VACUUM wal_small;
VACUUM wal_toast;
VACUUM wal_indexes;
VACUUM wal_room;
-- The pages were written since the last checkpoint.
CALL wal_of('wal_small', false, 'local:wal_new');
CALL wal_of('wal_toast', false, 'local:wal_new');
CALL wal_of('wal_indexes', false, 'local:wal_new');
CALL wal_of('wal_room', false, 'local:wal_new');
VACUUM wal_small;
VACUUM wal_toast;
VACUUM wal_indexes;
VACUUM wal_room;
-- They were not.
CHECKPOINT;
CALL wal_of('wal_small', true, 'local:wal_old');
CALL wal_of('wal_toast', true, 'local:wal_old');
CALL wal_of('wal_indexes', true, 'local:wal_old');
CALL wal_of('wal_room', true, 'local:wal_old');
SELECT name, checkpointed, CASE WHEN planned BETWEEN written * 0.75 AND written * 1.25 THEN 'within a quarter'
    ELSE format('planned %s, written %s', planned, written) END AS plan
FROM wal_ratio ORDER BY 2, 1;
-- The trial leaves nothing but dead versions, and can be left out.
SELECT rows_tried, obstacles FROM env_rotation_plan('wal_small', 'value', 'local:wal_new', trial_rows => 0);
SELECT count(*) FROM wal_small WHERE env_decrypt(value) = 'text of row ' || id;

-- What cannot work.
CREATE RULE r AS ON UPDATE TO wal_room DO ALSO SELECT 1;
CREATE FUNCTION wal_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER audit AFTER UPDATE ON wal_room FOR EACH ROW EXECUTE FUNCTION wal_audit();
ALTER TABLE wal_room ADD CONSTRAINT old_key CHECK (env_is_envelope(value, 'local:wal_old')) NOT VALID;
SELECT unnest(obstacles) FROM env_rotation_plan('wal_room', 'value', 'arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555');
DROP TABLE wal_small, wal_toast, wal_indexes, wal_room, wal_ratio;
DROP FUNCTION wal_audit;
DROP PROCEDURE wal_of;
ALTER SYSTEM RESET full_page_writes;
ALTER SYSTEM RESET autovacuum;
SELECT pg_reload_conf();
