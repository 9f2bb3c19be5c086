-- The numbers.
\echo '== 6. Numbers =='
\echo 'Each value carries its wrapped data key. One data key serves many values, so the key service is asked once per'
\echo 'data key and not once per value. dek = data encryption key.'
\echo
SELECT 'note' AS "table", count(body_enc) AS "values", sum(octet_length(o.body)) AS plaintext_bytes,
       sum(octet_length(n.body_enc)) AS stored_bytes,
       min(octet_length(n.body_enc) - octet_length(o.body)) AS bytes_around_each_value,
       count(DISTINCT env_dek_id(n.body_enc)) AS deks
FROM original AS o JOIN note AS n USING (id)
UNION ALL
SELECT 'customer.email', count(c.email), sum(octet_length(o.email)), sum(octet_length(c.email)),
       min(octet_length(c.email) - octet_length(o.email)), count(DISTINCT env_dek_id(c.email))
FROM customer_original AS o JOIN customer AS c USING (id);
\echo 'Done: every check passed. The server is thrown away now. "make psql" gives you one of your own.'
