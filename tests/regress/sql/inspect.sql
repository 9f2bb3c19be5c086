-- The header of a value, read without a key.
\set SHOW_CONTEXT never
SELECT env_local_create_key('inspect');

SELECT env_encrypt('hello', 'local:inspect', '{"app":"shop"}', 'row 1') AS value \gset
SELECT format_version, suite, type, has_aad, is_padded, encryption_context, wrapped_keys, provider, key_id,
       ciphertext_bytes
FROM env_inspect(:'value') \gx
SELECT octet_length(dek_id) AS dek_id_bytes, octet_length(nonce) AS nonce_bytes,
       dek_id = env_dek_id(:'value') AS dek_id, key_id = env_key_id(:'value') AS key_id,
       encryption_context = env_encryption_context(:'value') AS context,
       value_bytes = octet_length(:'value'::bytea) AS value_bytes,
       position(wrapped_dek IN :'value'::bytea) > 0 AS wrapped_dek_is_in_it,
       position(nonce IN :'value'::bytea) > 0 AS nonce_is_in_it
FROM env_inspect(:'value') \gx

-- The types, and a value without context or aad.
SELECT type, has_aad, encryption_context, ciphertext_bytes FROM env_inspect(env_encrypt('hello'::text, 'local:inspect'));
SELECT type, has_aad, encryption_context, ciphertext_bytes FROM env_inspect(env_encrypt('\x0001'::bytea, 'local:inspect'));
SELECT type, has_aad, encryption_context, ciphertext_bytes FROM env_inspect(env_encrypt('{"a":1}'::jsonb, 'local:inspect'));

-- What a value costs around its plaintext, in bytes: the key's name is 7 letters long here.
SELECT octet_length(env_encrypt('', 'local:inspect')) AS bytes_around_the_plaintext;

-- A value under a KMS key. No KMS made this one, but its form is right, so its header can be read.
SELECT ('\xf64501010001' || repeat('c0', 32) || '0000'       -- header: text, aad; no context
    || '0029' || '01' || '0026' || '21'                      -- lengths, provider 1, length of the key reference
    || '0200' || '0019df6690e5' || '715c081858254245a755138a6d9a11e6' || encode('us-west-2', 'hex')
    || encode('blob', 'hex')                                 -- the wrapped data key
    || repeat('aa', 24) || 'bbbbbb' || repeat('cc', 16))::bytea AS value \gset kms_
SELECT * FROM env_inspect(:'kms_value') \gx
SELECT env_is_envelope(:'kms_value'), env_key_id(:'kms_value');

-- env_is_envelope is never an error.
SELECT env_is_envelope(:'value') AS value,
       env_is_envelope('') AS empty,
       env_is_envelope('hello') AS text,
       env_is_envelope('\xf645') AS magic_only,
       env_is_envelope(substr(:'value'::bytea, 1, 100)) AS cut_short,
       env_is_envelope(set_byte(:'value', 2, 2)) AS version_2,
       env_is_envelope(set_byte(:'value', 0, 0)) AS other_magic;

-- It looks at the form, not at the truth: a changed tag has the form of a value.
SELECT env_is_envelope(set_byte(:'value', octet_length(:'value'::bytea) - 1, get_byte(:'value', octet_length(:'value'::bytea) - 1) # 1)) AS changed_tag;

-- Large values that are stored out of line are read as well.
CREATE TABLE large (secret bytea);
INSERT INTO large SELECT env_encrypt(repeat('x', 3000000), 'local:inspect', '{"app":"shop"}');
SELECT env_is_envelope(secret), env_key_id(secret), env_encryption_context(secret), octet_length(env_dek_id(secret)) AS dek_id_bytes FROM large;
SELECT key_id, ciphertext_bytes, value_bytes - ciphertext_bytes = (SELECT value_bytes - ciphertext_bytes FROM env_inspect(env_encrypt('', 'local:inspect', '{"app":"shop"}'))) AS same_overhead
FROM large, env_inspect(secret);
DROP TABLE large;

-- Many values in one statement: each is judged by its own head, whatever the one before it was.
SELECT env_local_create_key('inspect2');
CREATE TABLE many AS
SELECT label, round, value, CASE round % 2 WHEN 0 THEN 'local:inspect' ELSE 'local:inspect2' END AS asked
FROM generate_series(1, 4) AS round,
     (VALUES ('1: key 1', :'value'::bytea),
             ('2: key 2', env_encrypt('x', 'local:inspect2')),
             ('3: KMS key', :'kms_value'),
             ('4: its reference broken', set_byte(:'kms_value', 46, 3)),
             ('5: context broken', set_byte(:'value', 41, 2)),
             ('6: cut short', substr(:'value'::bytea, 1, 100)),
             ('7: none', 'hello')) AS values(label, value);
\set judged 'label, asked, env_is_envelope(value) AS is_envelope, env_is_envelope(value, asked) AS is_of_asked, CASE WHEN env_is_envelope(value) THEN env_key_id(value) END AS key_id'
-- One after the other, and in turns.
CREATE TABLE in_a_row AS SELECT :judged FROM (SELECT * FROM many ORDER BY asked, label, round) AS many;
CREATE TABLE in_turns AS SELECT :judged FROM (SELECT * FROM many ORDER BY round, label) AS many;
SELECT DISTINCT * FROM in_a_row ORDER BY asked, label;
SELECT count(*) AS judged_in_turns FROM in_turns;
SELECT * FROM in_turns EXCEPT SELECT * FROM in_a_row;
DROP TABLE many, in_a_row, in_turns;
