-- A value with two wrapped keys: no writer of this release makes one, but a reader tries each.
SET client_min_messages = warning;
SELECT env_local_create_key('wrapped_keys');

-- Puts a stanza in front of or behind the one that a value without an encryption context has.
CREATE FUNCTION add_stanza(value bytea, stanza bytea, in_front boolean) RETURNS bytea LANGUAGE sql AS $$
    SELECT substr(value, 1, 40)
        || int2send((bytes + octet_length(stanza))::int2)
        || CASE WHEN in_front THEN stanza || substr(value, 43, bytes) ELSE substr(value, 43, bytes) || stanza END
        || substr(value, 43 + bytes)
    FROM (SELECT get_byte(value, 40) * 256 + get_byte(value, 41)) AS wrapped_keys (bytes)
$$;
CREATE FUNCTION stanza(provider bytea, key_id text, wrapped_dek bytea) RETURNS bytea LANGUAGE sql AS $$
    SELECT provider
        || int2send((2 + octet_length(key_id) + octet_length(wrapped_dek))::int2)
        || set_byte('\x00', 0, 1 + octet_length(key_id)) || '\x01' || convert_to(key_id, 'UTF8') || wrapped_dek
$$;
CREATE TABLE t AS SELECT env_encrypt('a text', 'local:wrapped_keys') AS value;
CREATE TABLE stanzas (name text, stanza bytea);
INSERT INTO stanzas VALUES
    ('of a key that is not there', stanza('\x02', 'local:gone', decode(repeat('00', 65), 'hex'))),
    ('that is damaged', stanza('\x02', 'local:wrapped_keys', decode(repeat('00', 65), 'hex'))),
    ('of an unknown provider', stanza('\x7f', 'any', '\x00'));

SELECT name, in_front, env_is_envelope(two), env_decrypt(two), (env_inspect(two)).wrapped_keys
FROM t, stanzas, (VALUES (true), (false)) AS place (in_front), LATERAL (SELECT add_stanza(value, stanza, in_front)) AS v (two)
ORDER BY 1, 2;

-- The same from a cache without the data key.
SELECT env_cache_flush() > 0 AS flushed;
SELECT name, in_front, env_decrypt(add_stanza(value, stanza, in_front))
FROM t, stanzas, (VALUES (true), (false)) AS place (in_front)
ORDER BY 1, 2;

-- With none that opens the first one says why.
SELECT env_decrypt(add_stanza(overlay(value PLACING decode(repeat('00', 65), 'hex') FROM 66), stanza, true))
FROM t, stanzas WHERE name = 'of a key that is not there';
\echo :SQLSTATE

-- A key that is not allowed is not asked, and the other one opens the value.
SELECT env_cache_flush() > 0 AS flushed;
SET envelope_pg.allowed_keys = 'local:wrapped_keys';
SELECT env_decrypt(add_stanza(value, stanza, true)) FROM t, stanzas WHERE name = 'of a key that is not there';
DROP TABLE t, stanzas;
DROP FUNCTION add_stanza, stanza;
