-- Decrypt everything and compare.
\echo '== 4. Decrypt and compare every row =='
\echo

SELECT clock_timestamp() AS started \gset
SELECT count(*) AS rows, count(*) FILTER (WHERE o.body = '') AS empty, count(*) FILTER (WHERE o.body IS NULL) AS nulls,
       max(octet_length(o.body)) AS largest_bytes,
       count(*) FILTER (WHERE env_decrypt(n.body_enc, 'note.body:' || n.id) IS DISTINCT FROM o.body) AS differences
FROM original AS o FULL JOIN note AS n USING (id) \gset
SELECT round(:rows / extract(epoch FROM clock_timestamp() - :'started')) AS rows_per_second \gset

SELECT count(*) AS customers,
       count(*) FILTER (WHERE env_decrypt(c.email, 'customer.email:' || c.id) IS DISTINCT FROM o.email
                           OR env_decrypt_jsonb(c.address, 'customer.address:' || c.id) IS DISTINCT FROM o.address
                           OR env_decrypt_bytea(c.passport, 'customer.passport:' || c.id) IS DISTINCT FROM o.passport)
           AS customer_differences
FROM customer_original AS o FULL JOIN customer AS c USING (id) \gset

SELECT 'note' AS "table", :rows AS rows, :empty AS empty, :nulls AS nulls, :largest_bytes AS largest_bytes,
       :differences AS differences, :rows_per_second AS rows_per_second
UNION ALL
SELECT 'customer', :customers, 1, 1, NULL, :customer_differences, NULL;

SELECT must(:differences = 0 AND :customer_differences = 0, 'every row comes back as it was') \gset
SELECT must(:rows > 5000 AND :empty > 0 AND :nulls > 0 AND :largest_bytes > 100000, 'the text goes from empty to large') \gset
