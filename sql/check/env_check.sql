-- Read-only, and safe for whoever runs it: it reads catalogs and the heads of values, and runs nothing that a table's owner wrote.
CREATE OR REPLACE FUNCTION @extschema@.env_check(keys boolean DEFAULT false, rows bigint DEFAULT 1000)
    RETURNS TABLE (severity text, area text, finding text, object text, detail text, mend text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    columns jsonb;
    known_keys text[];
    -- Also those that nothing uses yet.
    allowed_keys CONSTANT text[] := ARRAY(
        SELECT btrim(k) FROM envelope_internal.check_settings_of(ARRAY['envelope_pg.allowed_keys']) AS f
        CROSS JOIN string_to_table(f.value, ',') AS k
        WHERE btrim(k) NOT IN ('', 'none'));
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('keys', keys));
    IF rows < 0 THEN
        RAISE 'rows must not be negative' USING ERRCODE = 'invalid_parameter_value', HINT = 'NULL looks at all rows, 0 at none.';
    END IF;
    SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') INTO columns FROM envelope_internal.check_columns(rows) AS c;
    known_keys := ARRAY(
        SELECT DISTINCT k.key_id FROM (
            SELECT jsonb_array_elements_text(c -> 'facts' -> 'key_ids') FROM jsonb_array_elements(columns) AS c
            WHERE jsonb_typeof(c -> 'facts') = 'object'
            UNION ALL
            SELECT r.rule ->> 'key_id' FROM envelope_internal.check_rules() AS r WHERE r.rule ->> 'key_id' NOT LIKE 'key:%'
            UNION ALL
            SELECT o.option_value FROM pg_foreign_server AS s
            JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'envelope_pg'
            CROSS JOIN pg_options_to_table(s.srvoptions) AS o WHERE o.option_name = 'key_id'
            UNION ALL
            SELECT i.key_id FROM @extschema@.env_index_key AS i
        ) AS k (key_id) WHERE k.key_id IS NOT NULL ORDER BY 1);
    RETURN QUERY
        SELECT f.severity, f.area, f.finding, f.object, f.detail, f.mend FROM (
            SELECT CASE WHEN c.finding IN ('credentials', 'static_credentials', 'region', 'endpoint_http', 'shared_counters',
                                           'broker_hung') THEN 'keys' ELSE 'settings' END AS area, c.*
            FROM envelope_internal.check_settings(known_keys) AS c
            UNION ALL
            SELECT 'plaintext', c.* FROM envelope_internal.check_logging() AS c
            UNION ALL
            SELECT 'plaintext', c.* FROM envelope_internal.check_stored() AS c
            UNION ALL
            SELECT 'rights', c.* FROM envelope_internal.check_rights() AS c
            UNION ALL
            SELECT 'data', c.* FROM envelope_internal.check_data(columns) AS c
            UNION ALL
            SELECT 'data', c.* FROM envelope_internal.check_runs() AS c
            UNION ALL
            SELECT c.area, c.severity, c.finding, c.object, c.detail, c.mend FROM envelope_internal.check_nodes() AS c
        ) AS f
        ORDER BY array_position(ARRAY['error', 'warning', 'notice'], f.severity), f.area, f.finding, f.object;
    -- A function of its own, as it is not for everybody who may check.
    IF keys THEN
        RETURN QUERY SELECT c.severity, 'keys', c.finding, c.object, c.detail, c.mend
            FROM envelope_internal.check_keys(ARRAY(SELECT k FROM unnest(known_keys) AS k UNION SELECT k FROM unnest(allowed_keys) AS k ORDER BY 1)) AS c
            ORDER BY c.object, c.finding;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_check(boolean, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_check(boolean, bigint) TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION @extschema@.env_check(boolean, bigint) IS
    'what is wrong with this server and this database, a row for each finding, with the statement that mends it';
