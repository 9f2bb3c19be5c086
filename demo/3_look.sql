-- What is stored.
\echo '== 3. What is stored =='
\echo 'A value carries all that is needed to open it, but not the key. This reads it without any key:'
\echo
\set ECHO queries
SELECT i.type, i.has_aad, i.encryption_context, i.key_id, left(i.wrapped_dek::text, 34) || '...' AS wrapped_dek,
       i.nonce, i.ciphertext_bytes, i.value_bytes
FROM customer, env_inspect(email) AS i WHERE id = 1 \gx

\set ECHO none
\echo 'Is ada@example.com in the file of the table?'
\echo
\set ECHO queries
CHECKPOINT;
SELECT position('ada@example.com'::bytea IN pg_read_binary_file(pg_relation_filepath('customer'))) > 0 AS email_is_there,
       position('Ada Byron'::bytea IN pg_read_binary_file(pg_relation_filepath('customer'))) > 0 AS name_is_there;
\set ECHO none
SELECT must(position('ada@example.com'::bytea IN pg_read_binary_file(pg_relation_filepath('customer'))) = 0
            AND position('Ada Byron'::bytea IN pg_read_binary_file(pg_relation_filepath('customer'))) > 0,
            'of both only the name is in the file') \gset
