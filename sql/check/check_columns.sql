-- The encrypted columns of this database, as env_check knows them: those with values, and those that triggers fill. A row for
-- each, with the rule of its trigger, and what its values are as far as they were looked at.
CREATE OR REPLACE FUNCTION envelope_internal.check_columns(rows_wanted bigint)
    RETURNS TABLE (relation oid, number smallint, column_name name, rule jsonb, trigger_name name, enabled "char", facts jsonb, obstacle text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    -- A probe waits for no ALTER TABLE.
    SET lock_timeout = '100ms'
AS $$
#variable_conflict use_column
DECLARE
    -- By table. All triggers are read once, however many tables there are.
    rules CONSTANT jsonb := (
        SELECT jsonb_object_agg(t.relation, t.rules)
        FROM (SELECT r.relation, jsonb_agg(to_jsonb(r) ORDER BY r.name) AS rules
              FROM envelope_internal.check_rules() AS r GROUP BY r.relation) AS t);
    target record;
    seen jsonb;
    problem text;
BEGIN
    FOR target IN
        SELECT c.relation::oid AS relation,
               array_agg(a.attnum ORDER BY a.attnum) AS numbers,
               array_agg(a.attnum ORDER BY a.attnum) FILTER (WHERE c.obstacle IS NULL) AS open_numbers,
               min(c.obstacle) AS obstacle
        FROM envelope_internal.inventory_columns(NULL::name) AS c
        JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attname = c.column_name
        -- Not the tokens beside the values.
        WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements(rules -> c.relation::oid::text) AS r
            CROSS JOIN jsonb_array_elements(CASE WHEN jsonb_typeof(r -> 'rule' -> 'tokens') = 'array' THEN r -> 'rule' -> 'tokens' ELSE '[]' END) AS k
            WHERE k ->> 'column' = c.column_name::text)
        GROUP BY c.relation
    LOOP
        seen := NULL;
        problem := target.obstacle;
        IF target.open_numbers IS NOT NULL THEN
            BEGIN
                seen := envelope_internal.check_values(target.relation, target.open_numbers, rows_wanted);
            EXCEPTION
                -- Such as a lock, or a damaged page. A cancel is not caught.
                WHEN OTHERS THEN
                    problem := SQLERRM;
            END;
        END IF;
        RETURN QUERY
            SELECT target.relation, a.attnum, a.attname, t.rule, t.name, t.enabled, f.facts,
                   CASE WHEN f.facts IS NULL THEN coalesce(problem, 'not examined') END
            FROM pg_attribute AS a
            LEFT JOIN LATERAL (
                SELECT r.rule, r.name, r.enabled
                FROM jsonb_to_recordset(rules -> target.relation::text) AS r (name name, enabled "char", rule jsonb)
                WHERE r.rule ->> 'target' = a.attname::text
                ORDER BY r.name LIMIT 1
            ) AS t ON true
            LEFT JOIN LATERAL (
                SELECT e AS facts FROM jsonb_array_elements(seen) AS e WHERE (e ->> 'number')::smallint = a.attnum
            ) AS f ON true
            WHERE a.attrelid = target.relation AND a.attnum = ANY (target.numbers)
              AND (t.rule IS NOT NULL OR f.facts IS NULL OR (f.facts ->> 'data_keys')::bigint > 0);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_columns(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_columns(bigint) TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_columns(bigint) IS
    'part of env_check: the encrypted columns of this database';
