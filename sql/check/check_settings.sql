-- What is mis-set, and whether the server has what it needs to reach its keys. Asks nothing of AWS.
CREATE OR REPLACE FUNCTION envelope_internal.check_settings(known_keys text[])
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    server CONSTANT jsonb := envelope_internal.check_server();
    reload CONSTANT text := ' SELECT pg_reload_conf();';
    -- ALTER SYSTEM knows the settings of a library only where it is loaded.
    load CONSTANT text := 'LOAD ''envelope_pg''; ';
    endpoint CONSTANT text := coalesce(current_setting('envelope_pg.kms_endpoint_url', true), '');
    preloaded CONSTANT text := current_setting('shared_preload_libraries');
    aws_keys CONSTANT text[] := ARRAY(SELECT k FROM unnest(known_keys) AS k WHERE k NOT LIKE 'local:%' ORDER BY k);
    uses_aws CONSTANT boolean := aws_keys <> '{}' OR NOT (server ->> 'local_keyring')::boolean;
    workers CONSTANT integer := current_setting('max_worker_processes')::integer;
    -- The launcher of logical replication takes one at start.
    taken CONSTANT integer := CASE WHEN current_setting('max_logical_replication_workers')::integer > 0 THEN 1 ELSE 0 END;
BEGIN
    RETURN QUERY
    SELECT 'error', 'credentials', 'server', 'none of the sources of AWS credentials is there: environment, profile, web identity, container, instance metadata',
           '-- Give the PostgreSQL server credentials, best those of its instance, task or pod, and restart it.'
    WHERE uses_aws AND server ->> 'credentials_source' IS NULL
    UNION ALL
    SELECT 'notice', 'static_credentials', 'server', 'an access key is in the environment of the server: it does not expire, and its user can read it',
           '-- Use a role of the instance, task or pod in its place.'
    WHERE uses_aws AND (server ->> 'has_static_credentials')::boolean
    UNION ALL
    SELECT 'warning', 'region', 'server', 'no AWS region is set, so only keys named by ARN can be used',
           format('%sALTER SYSTEM SET envelope_pg.kms_region = %L;%s', load,
                  coalesce((SELECT split_part(k, ':', 4) FROM unnest(aws_keys) AS k WHERE k LIKE 'arn:%' LIMIT 1), 'us-east-1'), reload)
    WHERE uses_aws AND server ->> 'region_source' IS NULL
    UNION ALL
    SELECT CASE WHEN endpoint ~* '^http://(localhost|127[.][0-9.]+|[[]::1[]])(:|/|$)' THEN 'notice' ELSE 'error' END, 'endpoint_http',
           'envelope_pg.kms_endpoint_url', 'data keys come over a connection without TLS: who sees it has them, and who answers can choose them',
           format('%sALTER SYSTEM SET envelope_pg.kms_endpoint_url = '''';%s', load, reload)
    WHERE endpoint ~* '^http://.'
    UNION ALL
    SELECT 'error', 'shared_counters', 'server',
           'sessions cannot tell each other of flushes and rotations: ' || (server ->> 'shared_problem'),
           '-- Remove the file, or give it back to the user of the server; it is made anew.'
    WHERE server ->> 'shared_problem' IS NOT NULL
    UNION ALL
    SELECT 'error', 'broker_hung', 'server', concat('the process "envelope_pg broker" does not answer: ', server -> 'broker' ->> 'problem'),
           '-- On the server: kill -CONT, then kill -TERM the process "envelope_pg broker".'
    WHERE server -> 'broker' ->> 'problem' IS NOT NULL
    UNION ALL
    SELECT 'notice', 'broker_off', f.object, 'each session calls KMS itself and has data keys of its own',
           coalesce(f.mend, load || 'ALTER SYSTEM SET envelope_pg.broker = ''on'';' || reload)
    FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.broker']) AS f WHERE f.value = 'off'
    UNION ALL
    SELECT 'warning', 'worker_processes', 'max_worker_processes',
           format('it is %s, of which %s is left for the broker; without one each session calls KMS itself', workers, greatest(workers - taken, 0)),
           format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart the server', taken + 8)
    WHERE current_setting('envelope_pg.broker') = 'on' AND workers - taken < 1
    UNION ALL
    SELECT 'warning', 'not_preloaded', 'shared_preload_libraries',
           'the library is loaded by the first value of a session: that takes longer, ALTER SYSTEM and ALTER ROLE do not check its settings before, and the SQL objects can be newer than the library of a session',
           format('ALTER SYSTEM SET shared_preload_libraries = %s; -- and restart the server', (
               SELECT string_agg(quote_literal(btrim(l, ' "')), ', ')
               FROM unnest(array_remove(string_to_array(preloaded, ','), '') || 'envelope_pg'::text) AS l))
    WHERE NOT 'envelope_pg' = ANY (SELECT regexp_replace(btrim(l, ' "'), '^.*/', '') FROM unnest(string_to_array(preloaded, ',')) AS l)
    UNION ALL
    SELECT 'warning', 'any_key', 'envelope_pg.allowed_keys',
           'whoever may call the functions may use each key that the server may',
           CASE WHEN known_keys = '{}' THEN load || 'ALTER SYSTEM SET envelope_pg.require_named_keys = ''on'';' || reload
                ELSE format('%sALTER SYSTEM SET envelope_pg.allowed_keys = %L;%s', load, array_to_string(known_keys, ', '), reload) END
    FROM (SELECT coalesce(string_agg(f.value, ''), '') AS value
          FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.allowed_keys', 'envelope_pg.require_named_keys']) AS f
          WHERE (f.object = 'server' OR f.object LIKE 'database %') AND f.value <> 'off') AS f
    WHERE f.value = ''
    UNION ALL
    SELECT 'warning', 'local_keyring', 'envelope_pg.local_keyring',
           'keys are in a file of this server: whoever can read the file has them, and so has each backup of it',
           load || 'ALTER SYSTEM SET envelope_pg.local_keyring = '''';' || reload
    WHERE (server ->> 'local_keyring')::boolean
    UNION ALL
    SELECT 'notice', 'keys_in_swap', 'server', 'memory for keys cannot be locked, so that it can be written to swap: the limit of the process for locked memory is too low',
           '-- LimitMEMLOCK=8M in the service of the server (ulimit -l), and a restart; or encrypted swap.'
    WHERE NOT (server ->> 'keys_are_locked')::boolean
    UNION ALL
    SELECT 'notice', 'core_dumps', 'server', 'a core dump of a session has plaintext of values in it; keys are left out',
           '-- LimitCORE=0 in the service of the server (ulimit -c), and a restart.'
    WHERE NOT (server ->> 'core_limit_is_zero')::boolean
    UNION ALL
    SELECT 'warning', 'double_encryption', f.object, 'values that are encrypted already can be encrypted once more by mistake',
           coalesce(f.mend, load || 'ALTER SYSTEM SET envelope_pg.allow_double_encryption = ''off'';' || reload)
    FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.allow_double_encryption']) AS f WHERE f.value = 'on'
    UNION ALL
    SELECT 'warning', 'data_key_age', f.object, 'one data key encrypts new values for more than 31 days',
           coalesce(f.mend, load || 'ALTER SYSTEM SET envelope_pg.dek_max_age = ''1d'';' || reload)
    FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.dek_max_age']) AS f
    WHERE envelope_internal.check_seconds(f.value) > 31 * 24 * 60 * 60
    UNION ALL
    SELECT 'warning', 'revocation_time', f.object, format('%s: a session goes on with a key for more than a day after it was disabled, or a permission revoked', f.name),
           coalesce(f.mend, format('%sALTER SYSTEM SET %s = ''15min'';%s', load, f.name, reload))
    FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.cache_ttl']) AS f
    WHERE envelope_internal.check_seconds(f.value) > 24 * 60 * 60;
END
$$;

-- A time as a setting has it: 300, 5min, '1 d'.
CREATE OR REPLACE FUNCTION envelope_internal.check_seconds(value text) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (regexp_match($1, '^[[:space:]]*([0-9.]+)'))[1]::numeric
        * CASE substring($1 FROM '[a-z]+') WHEN 'us' THEN 0.000001 WHEN 'ms' THEN 0.001 WHEN 'min' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 1 END
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_settings(text[]), envelope_internal.check_seconds(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_settings(text[]), envelope_internal.check_seconds(text) TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_settings(text[]) IS
    'part of env_check: settings of the server';
COMMENT ON FUNCTION envelope_internal.check_seconds(text) IS
    'part of env_check: a time as a setting has it, in seconds';
