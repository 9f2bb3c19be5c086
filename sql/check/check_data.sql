-- What is mis-used: encrypted columns, their triggers, indexes and constraints. `columns` is of check_columns, as JSON.
CREATE OR REPLACE FUNCTION envelope_internal.check_data(columns jsonb)
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH col AS MATERIALIZED (
        SELECT c.*, c.relation::regclass::text AS table_name, format('%s.%I', c.relation::regclass, c.column_name) AS column_object,
               (c.facts ->> 'others')::bigint AS others, (c.facts ->> 'with_aad')::bigint AS with_aad,
               (c.facts ->> 'without_aad')::bigint AS without_aad, (c.facts ->> 'data_keys')::bigint AS data_keys,
               (c.facts ->> 'wrappings')::bigint AS wrappings, c.facts ->> 'type' AS value_type,
               c.facts -> 'key_ids' ->> 0 AS key_id
        FROM jsonb_to_recordset($1) AS c (relation oid, number smallint, column_name name, rule jsonb, trigger_name name,
                                          enabled "char", facts jsonb, obstacle text)
        WHERE c.facts IS NOT NULL OR c.rule IS NOT NULL
    ), rule AS MATERIALIZED (
        SELECT r.*, r.relation::regclass::text AS table_name FROM envelope_internal.check_rules() AS r
    ), source AS MATERIALIZED (
        SELECT DISTINCT a.attrelid, a.attnum, a.attname, a.attnotnull FROM rule AS r
        JOIN pg_attribute AS a ON a.attrelid = r.relation AND a.attname::text = r.rule ->> 'source' AND NOT a.attisdropped
        WHERE r.rule ->> 'source' <> r.rule ->> 'target'
    ), compared AS MATERIALIZED (
        -- Columns whose values are compared by an index or constraint that would compare ciphertexts, or nulls.
        SELECT c.relation, c.number, c.column_object, 'value' AS kind FROM col AS c WHERE c.data_keys > 0 OR c.rule IS NOT NULL
        UNION ALL
        SELECT s.attrelid, s.attnum, format('%s.%I', s.attrelid::regclass, s.attname), 'source' FROM source AS s
    )
    SELECT 'error', 'mixed_column', c.column_object,
           format('%s of the %s values that were looked at are not encrypted', c.others, c.others + c.with_aad + c.without_aad),
           CASE WHEN c.with_aad > 0 OR c.value_type NOT IN ('text', 'bytea') OR c.rule IS NOT NULL
                THEN '-- Encrypt these rows as the application does: they are WHERE NOT env_is_envelope(column).'
                WHEN c.value_type = 'text'
                THEN format('UPDATE %s SET %I = %s(convert_from(%I, ''UTF8''), %L) WHERE NOT %s(%I);', c.table_name, c.column_name,
                            '@extschema@.env_encrypt', c.column_name, c.key_id, '@extschema@.env_is_envelope', c.column_name)
                ELSE format('UPDATE %s SET %I = %s(%I, %L) WHERE NOT %s(%I);', c.table_name, c.column_name,
                            '@extschema@.env_encrypt', c.column_name, c.key_id, '@extschema@.env_is_envelope', c.column_name) END
    FROM col AS c WHERE c.others > 0 AND c.data_keys > 0
    UNION ALL
    SELECT CASE WHEN i.indisunique OR i.indisexclusion THEN 'error' ELSE 'warning' END, 'useless_index', i.indexrelid::regclass::text,
           format('no two values of %s are equal, so this %s finds nothing', c.column_object,
                  CASE WHEN i.indisunique OR i.indisexclusion THEN 'constraint excludes nothing, and its index' ELSE 'index' END),
           CASE WHEN k.conname IS NULL THEN format('DROP INDEX %s;', i.indexrelid::regclass)
                ELSE format('ALTER TABLE %s DROP CONSTRAINT %I;', c.relation::regclass, k.conname) END
    FROM compared AS c
    JOIN pg_index AS i ON i.indrelid = c.relation
    LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.conrelid = c.relation AND k.contype IN ('p', 'u', 'x')
    WHERE c.kind = 'value' AND c.number = ANY (ARRAY(SELECT unnest(i.indkey::smallint[]) LIMIT i.indnkeyatts))
    UNION ALL
    SELECT 'error', 'useless_index', format('%s constraint %I', c.relation::regclass, k.conname),
           format('no two values of %s are equal, so this foreign key refuses each of them', c.column_object),
           format('ALTER TABLE %s DROP CONSTRAINT %I;', c.relation::regclass, k.conname)
    FROM compared AS c JOIN pg_constraint AS k ON k.conrelid = c.relation AND k.contype = 'f' AND c.number = ANY (k.conkey)
    WHERE c.kind = 'value'
    UNION ALL
    SELECT 'error', 'constrained_source', c.column_object,
           format('the trigger leaves null in it, so %s excludes nothing', i.indexrelid::regclass),
           CASE WHEN k.conname IS NULL THEN format('DROP INDEX %s;', i.indexrelid::regclass)
                ELSE format('ALTER TABLE %s DROP CONSTRAINT %I;', c.relation::regclass, k.conname) END
    FROM compared AS c
    JOIN pg_index AS i ON i.indrelid = c.relation
    LEFT JOIN pg_constraint AS k ON k.conindid = i.indexrelid AND k.conrelid = c.relation AND k.contype IN ('p', 'u', 'x')
    WHERE c.kind = 'source' AND c.number = ANY (i.indkey::smallint[])
    UNION ALL
    SELECT 'error', 'constrained_source', format('%s.%I', s.attrelid::regclass, s.attname),
           'the trigger leaves null in it, and it is NOT NULL, so no row can be written',
           format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL;', s.attrelid::regclass, s.attname)
    FROM source AS s WHERE s.attnotnull
    UNION ALL
    SELECT 'warning', 'aad_missing', c.column_object,
           format('%s of the values that were looked at are bound to no aad, and %s are bound to one', c.without_aad, c.with_aad),
           CASE WHEN c.rule ? 'aad' AND c.rule ->> 'source' <> c.rule ->> 'target' AND c.enabled IN ('O', 'A') AND c.value_type = 'text'
                THEN format('UPDATE %s SET %I = %s(%I), %I = NULL WHERE NOT (SELECT v.has_aad FROM %s(%I) AS v);', c.table_name,
                            c.rule ->> 'source', '@extschema@.env_decrypt', c.column_name, c.column_name,
                            '@extschema@.env_inspect', c.column_name)
                ELSE '-- Encrypt them again with the aad: they are WHERE NOT (SELECT has_aad FROM env_inspect(column)).' END
    FROM col AS c WHERE c.with_aad > 0 AND c.without_aad > 0
    UNION ALL
    SELECT 'warning', 'many_wrappings', c.column_object,
           format('%s data keys are wrapped in %s ways: each is a KMS call for whoever reads', c.data_keys, c.wrappings),
           -- One wrapping of each data key for all its values; KMS is not asked.
           format('UPDATE %1$s AS v SET %2$I = %3$s(v.%2$I, d.donor) FROM (SELECT DISTINCT ON (%4$s(%2$I)) %4$s(%2$I) AS dek_id, %2$I AS donor '
                  'FROM %1$s WHERE %5$s(%2$I)) AS d WHERE %5$s(v.%2$I) AND %4$s(v.%2$I) = d.dek_id '
                  'AND (%6$s(v.%2$I)).wrapped_dek <> (%6$s(d.donor)).wrapped_dek;',
                  c.table_name, c.column_name, '@extschema@.env_splice', '@extschema@.env_dek_id', '@extschema@.env_is_envelope', '@extschema@.env_inspect')
    FROM col AS c WHERE c.wrappings >= 16 AND c.wrappings >= 4 * c.data_keys
    UNION ALL
    SELECT 'error', 'trigger_disabled', format('%s trigger %I', r.table_name, r.name),
           CASE r.enabled WHEN 'D' THEN 'it is disabled: plaintext stays where it is written'
                          ELSE 'it fires for replication only: plaintext stays where it is written' END,
           format('ALTER TABLE %s ENABLE TRIGGER %I;', r.table_name, r.name)
    FROM (SELECT DISTINCT relation, name, enabled, table_name FROM rule) AS r WHERE r.enabled IN ('D', 'R')
    UNION ALL
    SELECT 'error', 'trigger_rule', format('%s trigger %I', r.table_name, r.name), 'an argument of it is no JSON object: each row that is written fails',
           format('DROP TRIGGER %I ON %s; -- and create it again', r.name, r.table_name)
    FROM (SELECT DISTINCT relation, name, table_name FROM rule WHERE rule IS NULL) AS r
    UNION ALL
    SELECT CASE WHEN c.rule IS NULL THEN 'warning' ELSE 'notice' END, 'check_missing', c.column_object,
           'no CHECK (env_is_envelope(...)) keeps plaintext out of this column',
           format('ALTER TABLE %s ADD CHECK (%s(%I));', c.table_name, '@extschema@.env_is_envelope', c.column_name)
    FROM col AS c
    JOIN pg_class AS t ON t.oid = c.relation AND t.relkind IN ('r', 'p') AND NOT t.relispartition
    WHERE (c.data_keys > 0 OR c.rule IS NOT NULL) AND coalesce(c.others, 0) = 0
      AND NOT EXISTS (
          SELECT FROM pg_constraint AS k
          JOIN pg_depend AS d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
          JOIN pg_proc AS p ON p.oid = d.refobjid AND p.proname = 'env_is_envelope' AND p.pronamespace = '@extschema@'::regnamespace
          WHERE k.conrelid = c.relation AND k.contype = 'c' AND c.number = ANY (k.conkey))
      -- A generated column holds what it was computed to.
      AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.relation AND a.attnum = c.number AND a.attgenerated <> '')
    UNION ALL
    SELECT 'notice', 'not_examined', c.obstacle, format('%s columns that can hold encrypted values were not looked at', count(*)),
           '-- Ask as a role that may read these tables; env_inventory_columns() lists the columns.'
    FROM jsonb_to_recordset($1) AS c (obstacle text)
    WHERE c.obstacle IS NOT NULL GROUP BY c.obstacle
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_data(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_data(jsonb) TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_data(jsonb) IS
    'part of env_check: encrypted columns, their triggers, indexes and constraints';
