-- Which key a value is under: env_is_envelope with a key, env_key_ids, env_is_same_key.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SELECT env_local_create_key('keys');
SELECT env_encrypt('a text', 'local:keys') AS value \gset
-- Values under KMS keys. No KMS made these, but their form is right: one key, and two replicas of another.
SELECT ('\xf64501010000' || repeat('c0', 32) || '00000029' || '01' || '002621' || '0200' || '0019df6690e5'
    || '715c081858254245a755138a6d9a11e6' || encode('us-west-2', 'hex') || encode('blob', 'hex') || repeat('aa', 43))::bytea AS kms,
    ('\xf64501010000' || repeat('c1', 32) || '00000029' || '01' || '002621' || '0280' || '0019df6690e5'
    || '1234abcd12ab34cd56ef1234567890ab' || encode('us-west-2', 'hex') || encode('blob', 'hex') || repeat('aa', 43))::bytea AS west,
    ('\xf64501010000' || repeat('c1', 32) || '00000029' || '01' || '002621' || '0280' || '0019df6690e5'
    || '1234abcd12ab34cd56ef1234567890ab' || encode('us-east-1', 'hex') || encode('blob', 'hex') || repeat('aa', 43))::bytea AS east \gset
SELECT env_key_id(:'kms') AS kms_key, env_key_id(:'west') AS west_key, env_key_id(:'east') AS east_key \gset
\echo :kms_key
\echo :west_key

SELECT env_is_envelope(:'value', 'local:keys') AS right_key, env_is_envelope(:'value', 'local:other') AS other_key,
       env_is_envelope('plain', 'local:keys') AS plain, env_is_envelope('', 'local:keys') AS empty,
       env_is_envelope(substr(:'value'::bytea, 1, 100), 'local:keys') AS cut_short, env_is_envelope(NULL, 'local:keys') AS null;
SELECT env_is_envelope(:'kms', :'kms_key') AS kms, env_is_envelope(:'kms', :'west_key') AS other, env_is_envelope(:'west', :'west_key') AS west,
       env_is_envelope(:'west', :'east_key') AS replica, env_is_envelope(:'east', :'west_key') AS replica_too;
SELECT env_is_same_key(:'west_key', :'east_key') AS replicas, env_is_same_key(:'west_key', :'kms_key') AS others,
       env_is_same_key('local:keys', 'local:keys') AS same, env_is_same_key('local:keys', 'local:Keys') AS case_matters,
       env_is_same_key(:'kms_key', replace(:'kms_key', 'us-west-2', 'us-east-1')) AS single_region;

-- What only KMS can resolve is an error, and so is a null key, whatever the value.
SELECT env_is_envelope(:'kms', 'alias/app');
\echo :SQLSTATE
SELECT env_is_envelope('plain', 'arn:aws:kms:us-west-2:111122223333:alias/app');
\echo :SQLSTATE
SELECT env_is_envelope(NULL, '715c0818-5825-4245-a755-138a6d9a11e6');
\echo :SQLSTATE
SELECT env_is_envelope(:'kms', 'no key');
\echo :SQLSTATE
SELECT env_is_envelope(:'value', NULL);
\echo :SQLSTATE
SELECT env_is_same_key('local:keys', 'alias/app');
\echo :SQLSTATE
SELECT env_is_same_key(NULL, 'local:keys');
\echo :SQLSTATE

-- All keys of a value that two keys wrap; env_key_id and the CHECK know the first.
SELECT (substr(:'value'::bytea, 1, 40) || int2send((octet_length(second) + bytes)::int2) || second || substr(:'value'::bytea, 43)) AS two
FROM (SELECT '\x02000f'::bytea || '\x0b01' || 'local:gone' || '\x000000', get_byte(:'value'::bytea, 40) * 256 + get_byte(:'value'::bytea, 41)) AS s (second, bytes) \gset
SELECT env_key_ids(:'value') AS one, env_key_ids(:'two') AS two, env_key_ids(:'kms') AS kms, env_key_ids(NULL) AS null;
SELECT env_key_id(:'two'), env_is_envelope(:'two', 'local:gone') AS first, env_is_envelope(:'two', 'local:keys') AS second;
SELECT env_key_ids('plain');
\echo :SQLSTATE

-- A CHECK that lets in nothing but values under one key.
CREATE TABLE vault (id int PRIMARY KEY, secret bytea CONSTRAINT under_key CHECK (env_is_envelope(secret, 'local:keys')));
INSERT INTO vault VALUES (1, :'value'), (2, NULL);
SELECT env_local_create_key('wrong');
\set VERBOSITY terse
INSERT INTO vault VALUES (3, 'plain');
\echo :SQLSTATE
INSERT INTO vault VALUES (3, env_encrypt('a text', 'local:wrong'));
\echo :SQLSTATE
CREATE TABLE alias (secret bytea CHECK (env_is_envelope(secret, 'alias/app')));
INSERT INTO alias VALUES (:'value');
\echo :SQLSTATE
DROP TABLE vault, alias;

-- Hexadecimal digits of a key are the same in either case; names are not.
SELECT env_is_same_key('arn:aws:kms:eu-west-1:111122223333:key/0B6D1DCF-8f5c-4b5b-9e42-3a2f6b5b8a11', 'arn:aws:kms:eu-west-1:111122223333:key/0b6d1dcf-8f5c-4b5b-9e42-3a2f6b5b8a11') AS key,
       env_is_same_key('local:keys', 'local:KEYS') AS name;
