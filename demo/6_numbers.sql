-- The numbers.
\echo '== 6. Numbers =='
\echo 'dek = data encryption key. Each value carries its wrapped one.'
\echo
\set ECHO queries
SELECT count(n.body_enc) AS "values", count(DISTINCT env_dek_id(n.body_enc)) AS deks, sum(octet_length(o.body)) AS plaintext_bytes,
       sum(octet_length(n.body_enc)) AS stored_bytes,
       min(octet_length(n.body_enc) - octet_length(o.body)) AS bytes_around_each_value
FROM original AS o JOIN note AS n USING (id);
\set ECHO none
