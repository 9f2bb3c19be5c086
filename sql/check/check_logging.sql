-- Settings by which PostgreSQL writes the text or the parameters of statements somewhere.
CREATE OR REPLACE FUNCTION envelope_internal.check_logging()
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH found AS MATERIALIZED (
        SELECT * FROM envelope_internal.check_settings_of(ARRAY[
            'log_statement', 'log_min_duration_statement', 'log_min_duration_sample', 'log_statement_sample_rate',
            'log_transaction_sample_rate', 'log_parameter_max_length_on_error', 'log_min_error_statement', 'debug_print_parse',
            'debug_print_rewritten', 'debug_print_plan', 'track_activities', 'auto_explain.log_min_duration',
            'pg_stat_statements.track', 'pg_stat_statements.track_utility', 'pgaudit.log'])
    ), known AS (
        SELECT f.*, k.severity, k.good, k.detail
        FROM found AS f
        JOIN (VALUES
            ('log_statement', 'error', 'ddl', 'it writes statements to the log, with literals, and parameters unless log_parameter_max_length is 0'),
            ('log_min_duration_statement', 'error', '-1', 'it writes slow statements to the log, with literals, and parameters unless log_parameter_max_length is 0'),
            ('log_min_duration_sample', 'error', '-1', 'it writes some slow statements to the log, with literals, and parameters unless log_parameter_max_length is 0'),
            ('log_transaction_sample_rate', 'error', '0', 'it writes all statements of some transactions to the log'),
            ('log_parameter_max_length_on_error', 'error', '0', 'it writes the parameters of statements that fail to the log'),
            ('log_min_error_statement', 'notice', 'panic', 'it writes statements that fail to the log, with their literals'),
            ('debug_print_parse', 'error', 'off', 'it writes parse trees to the log, with literals'),
            ('debug_print_rewritten', 'error', 'off', 'it writes parse trees to the log, with literals'),
            ('debug_print_plan', 'error', 'off', 'it writes plans to the log, with literals'),
            ('track_activities', 'notice', 'off', 'pg_stat_activity shows statements, with literals, to members of pg_read_all_stats'),
            ('auto_explain.log_min_duration', 'error', '-1', 'it writes plans of slow statements to the log, with literals and parameters'),
            ('pg_stat_statements.track_utility', 'warning', 'off', 'it keeps utility statements such as DO and CALL with their literals'),
            ('pgaudit.log', 'warning', 'none', 'it writes statements to the log, with literals')
        ) AS k (name, severity, good, detail) ON k.name = f.name
        WHERE CASE k.name
            WHEN 'log_statement' THEN f.value IN ('mod', 'all')
            WHEN 'log_min_error_statement' THEN f.value NOT IN ('fatal', 'panic')
            WHEN 'log_min_duration_sample' THEN f.value <> '-1' AND NOT EXISTS (
                SELECT FROM found AS r WHERE r.name = 'log_statement_sample_rate' AND r.value = '0' AND r.object = 'server')
            WHEN 'pg_stat_statements.track_utility' THEN f.value = 'on' AND NOT EXISTS (
                SELECT FROM found AS t WHERE t.name = 'pg_stat_statements.track' AND t.value = 'none' AND t.object = 'server')
            WHEN 'pgaudit.log' THEN f.value NOT IN ('', 'none')
            ELSE f.value <> k.good END
    )
    SELECT k.severity, k.name, k.object, format('%s = %s: %s', k.name, k.value, k.detail),
           coalesce(k.mend, format('ALTER SYSTEM SET %s = %L; SELECT pg_reload_conf();', k.name, k.good))
    FROM known AS k
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_logging() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_logging() TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_logging() IS
    'part of env_check: settings that write plaintext somewhere';
