-- A trigger of a partitioned table: partitions whose columns are in another order, or have other numbers.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('trigger_partitions');
CREATE TABLE event (region text, id int, secret text, secret_enc bytea, photo bytea, note text) PARTITION BY LIST (region);
CREATE TRIGGER event_encrypt BEFORE INSERT OR UPDATE ON event FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger(
    '{"source": "secret", "target": "secret_enc", "key_id": "local:trigger_partitions", "aad": "event.secret:{id}"}',
    '{"source": "photo", "target": "photo", "key_id": "local:trigger_partitions"}');
CREATE TABLE event_eu PARTITION OF event FOR VALUES IN ('eu');
-- Attached with its columns in another order.
CREATE TABLE event_us (photo bytea, secret_enc bytea, note text, secret text, id int, region text);
ALTER TABLE event ATTACH PARTITION event_us FOR VALUES IN ('us');
-- With columns that were dropped, one where the source was.
CREATE TABLE event_ap (secret_old text, region text, gone int, id int, secret_enc bytea, photo bytea, note text, secret text);
ALTER TABLE event_ap DROP secret_old, DROP gone;
ALTER TABLE event ATTACH PARTITION event_ap FOR VALUES IN ('ap');
-- Two levels.
CREATE TABLE event_sa (note text, id int, region text, secret text, secret_enc bytea, photo bytea) PARTITION BY RANGE (id);
CREATE TABLE event_sa_1 (id int, secret_enc bytea, secret text, photo bytea, region text, note text);
ALTER TABLE event_sa ATTACH PARTITION event_sa_1 FOR VALUES FROM (0) TO (100);
ALTER TABLE event ATTACH PARTITION event_sa FOR VALUES IN ('sa');

CREATE VIEW opened AS
    SELECT tableoid::regclass AS partition, id, secret, note, env_decrypt(secret_enc, 'event.secret:' || id) AS opened,
           convert_from(env_decrypt_bytea(photo), 'UTF8') AS photo
    FROM event;

INSERT INTO event (region, id, secret, photo)
    SELECT region, i, 'secret ' || region || i, convert_to('photo ' || region || i, 'UTF8')
    FROM unnest(ARRAY['eu', 'us', 'ap', 'sa']) WITH ORDINALITY AS r (region, i);
COPY event (region, id, secret, photo) FROM stdin;
us	12	copied	copied
sa	14	copied	copied
\.
INSERT INTO event_us (region, id, secret) VALUES ('us', 22, 'directly');
SELECT * FROM opened ORDER BY id;

CREATE TEMP TABLE before AS SELECT id, secret_enc, photo FROM event;
UPDATE event SET note = 'changed';
SELECT count(*) AS rows, count(*) FILTER (WHERE event.secret_enc = before.secret_enc) AS unchanged
FROM event JOIN before USING (id);
UPDATE event SET secret = 'new ' || id WHERE id > 10;
SELECT id, secret, opened FROM opened WHERE id > 10 ORDER BY id;

-- From one partition to another: with its values as they are, with a new one, and not with another aad.
UPDATE event SET region = 'ap' WHERE id = 1;
UPDATE event SET region = 'sa', secret = 'moved' WHERE id = 2;
SELECT * FROM opened WHERE id < 3 ORDER BY id;
SELECT count(*) AS moved_unchanged FROM event JOIN before USING (id) WHERE id = 1 AND event.secret_enc = before.secret_enc;
UPDATE event SET region = 'eu', id = 101 WHERE id = 1;
\echo :SQLSTATE
UPDATE event SET secret = NULL WHERE id = 3;
\echo :SQLSTATE

-- Renaming a column of the parent renames it everywhere.
ALTER TABLE event RENAME secret TO hidden;
INSERT INTO event (region, id, hidden) VALUES ('us', 30, 'the plaintext');
\echo :SQLSTATE
ALTER TABLE event RENAME hidden TO secret;
INSERT INTO event (region, id, secret) VALUES ('us', 30, 'named as before');
-- A partition that comes later has the trigger, too.
CREATE TABLE event_af PARTITION OF event FOR VALUES IN ('af');
INSERT INTO event (region, id, secret) VALUES ('af', 31, 'later');
SELECT * FROM opened WHERE id >= 30 ORDER BY id;
-- One that was detached keeps its values and has no trigger.
ALTER TABLE event DETACH PARTITION event_us;
SELECT count(*) AS triggers FROM pg_trigger WHERE tgrelid = 'event_us'::regclass;

-- UPSERT into partitions.
CREATE UNIQUE INDEX ON event (region, id);
INSERT INTO event (region, id, secret) VALUES ('ap', 3, 'upsert'), ('ap', 40, 'inserted')
    ON CONFLICT (region, id) DO UPDATE SET secret_enc = EXCLUDED.secret_enc;
INSERT INTO event (region, id, secret) VALUES ('ap', 3, 'upsert') ON CONFLICT (region, id) DO UPDATE SET secret = EXCLUDED.secret;
\echo :SQLSTATE
SELECT id, secret, opened FROM opened WHERE partition = 'event_ap'::regclass ORDER BY id;

DROP VIEW opened;
DROP TABLE event, event_us;
