-- Search beside plaintext, beside a column of pgcrypto digests, and beside scans that decrypt. Prints a Markdown table. Run by
-- scripts/bench-search.sh on a throw-away server; :rows says how many rows.
\set QUIET on
\pset pager off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
SELECT env_local_create_key('bench') \gset
SELECT env_create_index_key('bench', 'local:bench') \gset
SET jit = off;
SET work_mem = '256MB';
SET maintenance_work_mem = '256MB';

CREATE TABLE person AS
SELECT n AS id, 'person ' || n AS plain, n AS number, env_encrypt('person ' || n, 'local:bench') AS value,
       env_blind_index('person ' || n, 'bench') AS token, digest('person ' || n, 'sha256') AS digest,
       env_prefix_tokens(lpad(n::text, 8, '0'), 'bench', '{6}') AS prefixes, lpad(n::text, 8, '0') AS padded,
       env_bucket_token(n, 'bench', 100) AS bucket
FROM generate_series(1, :rows) AS n;
CREATE INDEX person_plain ON person (plain);
CREATE INDEX person_token ON person (token);
CREATE INDEX person_digest ON person (digest);
CREATE INDEX person_number ON person (number);
CREATE INDEX person_bucket ON person (bucket);
CREATE INDEX person_prefixes ON person USING gin (prefixes);
CREATE INDEX person_padded ON person (padded text_pattern_ops);
VACUUM ANALYZE person;

CREATE TABLE result (what text, contender text, us double precision);

-- The CPU time of this backend in nanoseconds: other load on the machine is not in it, and neither are parallel workers.
CREATE FUNCTION cpu_ns() RETURNS bigint LANGUAGE sql AS $$ SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint $$;

-- Runs a statement with n = a row number so many times, and notes the microseconds of CPU that each takes.
CREATE PROCEDURE measure(what text, contender text, statement text, times int) LANGUAGE plpgsql AS $$
DECLARE
    started bigint;
BEGIN
    started := cpu_ns();
    EXECUTE format('DO $body$ DECLARE n bigint; r record; BEGIN FOR i IN 1..%s LOOP n := 1 + (i * 7919::bigint * 104729) %% %s; %s; END LOOP; END $body$',
                   times, current_setting('bench.rows'), statement);
    INSERT INTO result VALUES (what, contender, (cpu_ns() - started) / 1e3 / times);
END
$$;
SELECT set_config('bench.rows', :'rows', false) \gset

CREATE TABLE insert_plain (id bigint, plain text);
CREATE INDEX ON insert_plain (plain);
CREATE TABLE insert_token (id bigint, value bytea, token bytea);
CREATE INDEX ON insert_token (token);

-- Interleaved, so that what else the machine does hits all alike; medians.
DO $$
BEGIN
    FOR repetition IN 1..5 LOOP
        CALL measure('equality', 'plaintext', 'SELECT id INTO r FROM person WHERE plain = ''person '' || n', 20000);
        CALL measure('equality', 'token', 'SELECT id INTO r FROM person WHERE token = env_blind_index(''person '' || n, ''bench'')', 20000);
        CALL measure('equality', 'candidates', 'SELECT id INTO r FROM person WHERE token = ANY (env_blind_index_candidates(''person '' || n, ''bench''))', 20000);
        CALL measure('equality', 'pgcrypto digest', 'SELECT id INTO r FROM person WHERE digest = digest(''person '' || n, ''sha256'')', 20000);
        CALL measure('prefix, 100 hits', 'plaintext', 'SELECT count(*) INTO r FROM person WHERE padded LIKE left(lpad(n::text, 8, ''0''), 6) || ''%%''', 500);
        CALL measure('prefix, 100 hits', 'token and recheck', 'SELECT count(env_decrypt(value)) INTO r FROM person WHERE prefixes @> ARRAY[env_prefix_token(lpad(n::text, 8, ''0''), ''bench'', ''{6}'')]', 500);
        CALL measure('range, 100 hits', 'plaintext', 'SELECT count(*) INTO r FROM person WHERE number BETWEEN n AND n + 99', 500);
        CALL measure('range, 100 hits', 'token and recheck', 'SELECT count(*) INTO r FROM person WHERE bucket = ANY (env_bucket_tokens(n::bigint, n::bigint + 99, ''bench'', 100)) AND env_decrypt(value) LIKE ''person%%''', 500);
        CALL measure('insert', 'plaintext', 'INSERT INTO insert_plain VALUES (n, ''person '' || n)', 20000);
        CALL measure('insert', 'value and token', 'INSERT INTO insert_token VALUES (n, env_encrypt(''person '' || n, ''local:bench''), env_blind_index(''person '' || n, ''bench''))', 20000);
        CALL measure('call', 'token', 'PERFORM count(env_blind_index(plain, ''bench'')) FROM person WHERE id <= 200000', 1);
        CALL measure('call', 'nothing', 'PERFORM count(convert_to(plain, ''UTF8'')) FROM person WHERE id <= 200000', 1);
        SET max_parallel_workers_per_gather = 0;
        CALL measure('join of all rows', 'plaintext', 'PERFORM count(*) FROM person AS a JOIN person AS b ON a.plain = b.plain', 1);
        CALL measure('join of all rows', 'token', 'PERFORM count(*) FROM person AS a JOIN person AS b ON a.token = b.token', 1);
        CALL measure('LIKE, no index', 'plaintext', 'PERFORM count(*) FROM person WHERE plain LIKE ''%%9999%%''', 1);
        CALL measure('LIKE, no index', 'decrypting', 'PERFORM count(*) FROM person WHERE env_decrypt(value) LIKE ''%%9999%%''', 1);
    END LOOP;
END
$$;

\pset tuples_only on
\pset format unaligned
SELECT '| what | contender | CPU us | of the first |';
SELECT '|---|---|---|---|';
SELECT format('| %s | %s | %s | %s |', what, contender, round(us::numeric, 1), round((us / first_value(us) OVER (PARTITION BY what ORDER BY first))::numeric, 2))
FROM (SELECT what, contender, percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us, min(ctid) AS first FROM result GROUP BY 1, 2) AS m
ORDER BY min(first) OVER (PARTITION BY what), first;
SELECT format('token, one call: %s ns', round(((a.us - b.us) * 1000 / 200000)::numeric))
FROM (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us FROM result WHERE what = 'call' AND contender = 'token') AS a,
     (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us FROM result WHERE what = 'call' AND contender = 'nothing') AS b;
SELECT format('index bytes a row: %s', string_agg(format('%s %s', relname, round(pg_relation_size(oid) / :rows::numeric, 1)), ', ' ORDER BY relname))
FROM pg_class WHERE relname ~ '^person_';
