-- Decrypt everything and compare.
\echo '== 4. Decrypt and compare every row =='
\echo 'All sessions forget their data keys first, so that this starts cold.'
\echo
\set before `awk '{ total += $2 } END { print total + 0 }' "$KMS_CALLS"`
\set ECHO queries
SELECT env_cache_flush(true) IS NOT NULL AS flushed;
\timing on
SELECT count(*) AS rows, count(*) FILTER (WHERE o.body = '') AS empty, count(*) FILTER (WHERE o.body IS NULL) AS nulls,
       max(octet_length(o.body)) AS largest_bytes,
       count(*) FILTER (WHERE env_decrypt(n.body_enc, 'note.body:' || n.id) IS DISTINCT FROM o.body) AS differences
FROM original AS o FULL JOIN note AS n USING (id);
\timing off
SELECT name, env_decrypt(email, 'customer.email:' || id) AS email, env_decrypt_jsonb(address) AS address,
       env_decrypt_bytea(passport) AS passport FROM customer;
\set ECHO none
\echo 'Calls to KMS so far. Each data key was asked for once (Decrypt), for all rows:'
\echo
\! cat "$KMS_CALLS"
\set calls `awk '{ total += $2 } END { print total + 0 }' "$KMS_CALLS"`
\echo
SELECT count(*) AS rows, count(*) FILTER (WHERE o.body = '') AS empty, count(*) FILTER (WHERE o.body IS NULL) AS nulls,
       max(octet_length(o.body)) AS largest_bytes,
       count(*) FILTER (WHERE env_decrypt(n.body_enc, 'note.body:' || n.id) IS DISTINCT FROM o.body) AS differences
FROM original AS o FULL JOIN note AS n USING (id) \gset
SELECT must(:differences = 0, 'every row comes back as it was'),
       must(:rows > 5000 AND :empty > 0 AND :nulls > 0 AND :largest_bytes > 100000, 'the text goes from empty to large'),
       must(:calls <= :before + 2, 'a data key is unwrapped once') \gset
