-- What is refused.
\echo '== 5. What is refused =='
\echo 'A role without the grant. "reader" may decrypt, "writer" may not, and both may read the table:'
\echo
\set ECHO queries
CREATE ROLE writer IN ROLE envelope_encrypt;
CREATE ROLE reader IN ROLE envelope_decrypt;
GRANT SELECT ON customer TO writer, reader;
\set ON_ERROR_STOP off
SET ROLE writer;
SELECT env_decrypt(email, 'customer.email:1') FROM customer WHERE id = 1;
\set refused_role :SQLSTATE
SET ROLE reader;
SELECT env_decrypt(email, 'customer.email:1') FROM customer WHERE id = 1;
RESET ROLE;

\echo 'A value pasted into another row. Customer 2 gets the e-mail of customer 1:'
\echo
BEGIN;
UPDATE customer SET email = (SELECT email FROM customer WHERE id = 1) WHERE id = 2;
SELECT env_decrypt(email, 'customer.email:' || id) FROM customer WHERE id = 2;
\set refused_row :SQLSTATE
ROLLBACK;

\echo
\echo 'A value with one bit changed:'
\echo
BEGIN;
UPDATE customer SET email = set_byte(email, octet_length(email) - 1, get_byte(email, octet_length(email) - 1) # 1) WHERE id = 1;
SELECT env_decrypt(email, 'customer.email:' || id) FROM customer WHERE id = 1;
\set refused_bit :SQLSTATE
ROLLBACK;

\echo
\echo 'Plain text in the encrypted column:'
\echo
\set VERBOSITY terse
UPDATE note SET body_enc = 'plain text' WHERE id = 1;
\set refused_plain :SQLSTATE
\set ECHO none
\echo
\set ON_ERROR_STOP on
SELECT must(:'refused_role' = '42501', 'a role without the grant is refused'),
       must(:'refused_row' = '22000', 'a value pasted into another row does not open'),
       must(:'refused_bit' = '22000', 'a changed value does not open'),
       must(:'refused_plain' IN ('22P03', '23514'), 'plain text is refused') \gset
