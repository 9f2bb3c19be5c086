-- What is stored.
\echo '== 3. What is stored =='
\echo 'A value carries all that is needed to open it, but not the key. env_inspect shows it without any key:'
\echo
SELECT i.format_version, i.suite, i.type, i.has_aad, i.is_padded, left(i.dek_id::text, 34) || '...' AS dek_id,
       i.encryption_context, i.wrapped_keys, i.provider, i.key_id, left(i.wrapped_dek::text, 34) || '...' AS wrapped_dek,
       i.nonce, i.ciphertext_bytes, i.value_bytes
FROM customer, env_inspect(email) AS i
WHERE id = 1 \gx

\echo 'Searching the tables'' files on disk for ada@example.com:'
\echo
CHECKPOINT;
SELECT t AS "table", position('ada@example.com'::bytea IN pg_read_binary_file(pg_relation_filepath(t))) > 0 AS found
FROM unnest(ARRAY['customer_original', 'customer']) AS t;
SELECT must(position('ada@example.com'::bytea IN pg_read_binary_file(pg_relation_filepath('customer'))) = 0,
            'the plaintext is not in the file of the encrypted table') \gset
