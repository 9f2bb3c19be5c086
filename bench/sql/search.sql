-- Search beside plaintext, beside a column of pgcrypto digests, and beside scans that decrypt: medians, as CSV in :csv. Run by
-- scripts/bench-search.sh on a throw-away server; :rows says how many rows, :repetitions how often.
\set QUIET on
\pset pager off
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
SELECT env_local_create_key('bench') \gset
SELECT env_create_index_key('bench', 'local:bench') \gset
SET jit = off;
SET work_mem = '1GB';
SET hash_mem_multiplier = 1;
SET maintenance_work_mem = '512MB';
SELECT set_config('bench.rows', :'rows', false), set_config('bench.repetitions', :'repetitions', false) \gset

CREATE TABLE person AS
SELECT n AS id, 'person ' || lpad(n::text, 8, '0') AS plain,
       -- Those that hits are rechecked with; the indexes are of all rows.
       CASE WHEN n <= 1000000 THEN env_encrypt('person ' || lpad(n::text, 8, '0'), 'local:bench') END AS value,
       env_blind_index('person ' || lpad(n::text, 8, '0'), 'bench') AS token,
       env_prefix_tokens(lpad((n / 100)::text, 6, '0'), 'bench', '{6}') AS prefixes, env_bucket_token(n, 'bench', 100) AS bucket
FROM generate_series(1, :rows) AS n;
CREATE TABLE hashed AS SELECT id, digest(plain, 'sha256') AS digest FROM person WHERE :rows <= 1000000;
CREATE INDEX person_id ON person (id);
CREATE INDEX person_plain ON person (plain text_pattern_ops);
CREATE INDEX person_token ON person (token);
CREATE INDEX person_bucket ON person (bucket);
CREATE INDEX person_prefixes ON person USING gin (prefixes);
CREATE INDEX hashed_digest ON hashed (digest);
VACUUM ANALYZE person, hashed;

CREATE TABLE result (question text, contender text, unit text, amount double precision, number serial);

-- The CPU time of this backend in nanoseconds: other load on the machine is not in it, and neither are parallel workers.
CREATE FUNCTION cpu_ns() RETURNS bigint LANGUAGE sql AS $$ SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::bigint $$;

-- The CPU time of parallel workers that have ended, and of other children of the postmaster, in nanoseconds.
CREATE FUNCTION ended_ns() RETURNS bigint LANGUAGE sql AS $$
    SELECT (split_part(stat, ' ', 16)::bigint + split_part(stat, ' ', 17)::bigint) * 10000000
    FROM (SELECT regexp_replace(pg_read_file('/proc/' || split_part(pg_read_file('postmaster.pid'), E'\n', 1) || '/stat'), E'\\([^)]*\\)', 'x') AS stat) AS s
$$;

-- Runs a statement with a random row's number n so many times, prepared, and notes the microseconds of CPU that each takes.
CREATE PROCEDURE measure(question text, contender text, statement text, times int) LANGUAGE plpgsql AS $$
DECLARE
    started bigint;
BEGIN
    started := cpu_ns();
    EXECUTE format('DO $body$ DECLARE n bigint; r record; BEGIN FOR i IN 1..%s LOOP n := 1 + (i * 7919::bigint * 104729) %% (%s - 200); %s; END LOOP; END $body$',
                   times, CASE WHEN question LIKE '%hits' THEN least(current_setting('bench.rows')::bigint, 1000000) ELSE current_setting('bench.rows')::bigint END,
                   statement);
    INSERT INTO result VALUES (question, contender, 'us', (cpu_ns() - started) / 1e3 / times);
END
$$;

-- Notes the CPU time of all processes, and the elapsed time.
CREATE PROCEDURE measure_scan(workers int, contender text, condition text) LANGUAGE plpgsql AS $$
DECLARE
    of_workers bigint := ended_ns();
    own bigint := cpu_ns();
    started timestamptz := clock_timestamp();
BEGIN
    EXECUTE format('SET max_parallel_workers_per_gather = %s', workers);
    EXECUTE 'SELECT count(*) FROM person WHERE ' || condition;
    INSERT INTO result VALUES (format('LIKE without an index, %s workers: elapsed', workers), contender, 'us', extract(epoch FROM clock_timestamp() - started) * 1e6);
    own := cpu_ns() - own;
    PERFORM pg_sleep(0.2);
    INSERT INTO result VALUES (format('LIKE without an index, %s workers: CPU of all', workers), contender, 'us', (own + ended_ns() - of_workers) / 1e3);
    SET max_parallel_workers_per_gather = 0;
END
$$;

CREATE TABLE insert_plain (id bigint, plain text);
CREATE INDEX ON insert_plain (plain);
CREATE TABLE insert_token (id bigint, value bytea, token bytea);
CREATE INDEX ON insert_token (token);
SET max_parallel_workers_per_gather = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;

-- Interleaved, so that what else the machine does hits all alike.
DO $$
DECLARE
    text_of_n CONSTANT text := '''person '' || lpad(n::text, 8, ''0'')';
    digits_of_n CONSTANT text := 'lpad((n / 100)::text, 6, ''0'')';
BEGIN
    FOR repetition IN 1..current_setting('bench.repetitions')::int LOOP
        CALL measure('equality', 'plaintext', format('SELECT id INTO r FROM person WHERE plain = %s', text_of_n), 20000);
        CALL measure('equality', 'token', format('SELECT id INTO r FROM person WHERE token = env_blind_index(%s, ''bench'')', text_of_n), 20000);
        IF current_setting('bench.rows')::bigint <= 1000000 THEN
            CALL measure('equality', 'pgcrypto digest', format('SELECT id INTO r FROM hashed WHERE digest = digest(%s, ''sha256'')', text_of_n), 20000);
        END IF;
        CALL measure('equality', 'tokens of two versions', format('SELECT id INTO r FROM person WHERE token IN (env_blind_index(%1$s, ''bench'', version => 1), env_blind_index(%1$s, ''bench''))', text_of_n), 20000);
        CALL measure('equality', 'candidates', format('SELECT id INTO r FROM person WHERE token = ANY (env_blind_index_candidates(%s, ''bench''))', text_of_n), 20000);
        CALL measure('prefix, 100 hits', 'plaintext', format('SELECT count(*) INTO r FROM person WHERE plain LIKE ''person '' || %s || ''%%''', digits_of_n), 500);
        CALL measure('prefix, 100 hits', 'token and recheck', format('SELECT count(*) INTO r FROM person WHERE prefixes @> ARRAY[env_prefix_token(%1$s, ''bench'', ''{6}'')] AND env_decrypt(value) LIKE ''person '' || %1$s || ''%%''', digits_of_n), 500);
        CALL measure('range, 100 hits', 'plaintext', 'SELECT count(*) INTO r FROM person WHERE id BETWEEN n AND n + 99', 500);
        CALL measure('range, 100 hits', 'token and recheck', 'SELECT count(*) INTO r FROM person WHERE bucket = ANY (env_bucket_tokens(n::bigint, n::bigint + 99, ''bench'', 100)) AND right(env_decrypt(value), 8)::int BETWEEN n AND n + 99', 500);
        CALL measure('insert', 'plaintext', format('INSERT INTO insert_plain VALUES (n, %s)', text_of_n), 20000);
        CALL measure('insert', 'value and token', format('INSERT INTO insert_token VALUES (n, env_encrypt(%1$s, ''local:bench''), env_blind_index(%1$s, ''bench''))', text_of_n), 20000);
        CALL measure('call of 200,000', 'convert_to', 'PERFORM count(convert_to(plain, ''UTF8'')) FROM person WHERE id <= 200000', 1);
        CALL measure('call of 200,000', 'env_blind_index', 'PERFORM count(env_blind_index(plain, ''bench'')) FROM person WHERE id <= 200000', 1);
        CALL measure('call of 200,000', 'pgcrypto digest', 'PERFORM count(digest(plain, ''sha256'')) FROM person WHERE id <= 200000', 1);
        -- Of 10 million rows they would take the whole bench's time, and say the same.
        CONTINUE WHEN current_setting('bench.rows')::bigint > 1000000;
        CALL measure('join of 1,000,000 with 1,000,000 rows', 'plaintext', 'PERFORM count(*) FROM person AS a JOIN person AS b ON a.plain = b.plain', 1);
        CALL measure('join of 1,000,000 with 1,000,000 rows', 'token', 'PERFORM count(*) FROM person AS a JOIN person AS b ON a.token = b.token', 1);
        FOR workers IN 0..2 LOOP
            CALL measure_scan(workers, 'plaintext', 'plain LIKE ''%9999%''');
            CALL measure_scan(workers, 'decrypting', 'env_decrypt(value) LIKE ''%9999%''');
        END LOOP;
    END LOOP;
    INSERT INTO result SELECT 'index bytes a row', replace(replace(relname, 'person_', ''), 'hashed_', ''), 'bytes', pg_relation_size(oid) / current_setting('bench.rows')::float8
    FROM pg_class WHERE relname ~ '^(person|hashed)_' AND pg_relation_size(oid) > 8192 ORDER BY relname;
END
$$;

COPY (
    SELECT current_setting('bench.rows') AS rows, question, contender, unit, amount,
           amount / nullif(first_value(amount) OVER (PARTITION BY question ORDER BY number), 0) AS of_the_first
    FROM (SELECT question, contender, unit, min(number) AS number, percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS amount
          FROM result GROUP BY 1, 2, 3) AS medians
    ORDER BY min(number) OVER (PARTITION BY question), number
) TO STDOUT WITH (FORMAT csv, HEADER);
