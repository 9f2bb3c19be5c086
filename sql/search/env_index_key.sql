CREATE OR REPLACE VIEW @extschema@.env_index_key AS
SELECT k.name, k.version,
       envelope_internal.key_id(k.stub) AS key_id,
       envelope_internal.encryption_context(k.stub) AS encryption_context,
       (SELECT pg_catalog.min(f.recorded) FROM envelope_internal.index_key AS f
        WHERE f.name = k.name AND f.version = k.version) AS created,
       CASE WHEN k.is_retired THEN k.recorded END AS retired,
       ARRAY(SELECT pg_catalog.format('%s.%I', r.relation::pg_catalog.regclass, r.token ->> 'column')
             FROM envelope_internal.token_rules() AS r
             WHERE r.token ->> 'index' = k.name AND NOT k.is_retired
               AND (r.token ->> 'version' = k.version::text
                    OR NOT r.token ? 'version' AND k.version = (SELECT pg_catalog.max(l.version) FROM envelope_internal.index_key AS l
                                                                 WHERE l.name = k.name))
             ORDER BY 1) AS columns
FROM envelope_internal.index_key AS k
WHERE k.revision = (SELECT pg_catalog.max(l.revision) FROM envelope_internal.index_key AS l
                    WHERE l.name = k.name AND l.version = k.version);

GRANT SELECT ON @extschema@.env_index_key TO envelope_search, envelope_rotate, envelope_admin, pg_monitor;

COMMENT ON VIEW @extschema@.env_index_key IS
    'the versions of index keys: KMS key, when they were made and retired, and the columns that triggers fill with their tokens';
