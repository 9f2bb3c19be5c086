-- What hangs on a plaintext column, and what becomes of it: from the catalog, nothing is read of the table.
CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_column_plan(relation regclass, source_column name)
    RETURNS TABLE (object text, matter text, way text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    of_column CONSTANT smallint := (SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = $2 AND NOT attisdropped);
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('relation', $1::oid, 'source_column', $2));
    IF of_column IS NULL THEN
        RAISE 'column "%" of relation % does not exist', $2, $1 USING ERRCODE = 'undefined_column';
    END IF;
    RETURN QUERY
        SELECT format('constraint "%s" of %s', c.conname, c.conrelid::regclass),
               CASE c.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' WHEN 'x' THEN 'EXCLUDE' ELSE 'CHECK' END,
               CASE c.contype
                   WHEN 'f' THEN 'values of one plaintext differ: keep the key of the rows in plain, or have both columns hold env_blind_index of the plaintext and the constraint there'
                   WHEN 'c' THEN 'holds for null, too, when the plaintext is gone: check in the application, or in a trigger before the one that encrypts'
                   ELSE 'values of one plaintext differ: a column with env_blind_index of the plaintext, and the constraint there' END
        FROM pg_constraint AS c
        -- NOT NULL, of which 18 makes a constraint, is the column's own below.
        WHERE (c.conrelid = $1 AND of_column = ANY (c.conkey) AND c.contype <> 'n') OR (c.contype = 'f' AND c.confrelid = $1 AND of_column = ANY (c.confkey))
        UNION ALL
        SELECT format('index %s', i.indexrelid::regclass), CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END,
               'finds nothing in values: env_blind_index for =, UNIQUE and joins, env_prefix_tokens and env_bucket_token for prefixes and ranges'
        FROM pg_index AS i
        WHERE i.indrelid = $1 AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)
          AND (of_column = ANY (i.indkey::smallint[]) OR EXISTS (
              SELECT FROM pg_depend AS d WHERE (d.classid, d.objid, d.refclassid, d.refobjid, d.refobjsubid)
                  = ('pg_class'::regclass, i.indexrelid, 'pg_class'::regclass, $1, of_column)))
        UNION ALL
        SELECT format('column "%s"', a.attname), 'NOT NULL', 'ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL before clear_source; NOT NULL on the encrypted column'
        FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum = of_column AND a.attnotnull
        UNION ALL
        SELECT format('column "%s"', g.attname), 'generated column', 'is computed from null when the plaintext is gone, and holds it until then: drop it'
        FROM pg_attrdef AS e JOIN pg_attribute AS g ON g.attrelid = e.adrelid AND g.attnum = e.adnum AND g.attgenerated <> ''
        JOIN pg_depend AS d ON d.refobjid = $1 AND d.refobjsubid = of_column AND (
            (d.classid, d.objid) = ('pg_attrdef'::regclass, e.oid)
            -- Before PostgreSQL 15.
            OR (d.classid, d.objid, d.objsubid) = ('pg_class'::regclass, $1, g.attnum))
        WHERE e.adrelid = $1
        UNION ALL
        SELECT DISTINCT format('%s %s', CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, v.oid::regclass), 'view',
               'shows null when the plaintext is gone, and a materialized one holds it: have it decrypt, or refresh it'
        FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v ON v.oid = r.ev_class
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = $1 AND d.refobjsubid = of_column AND v.oid <> $1
        UNION ALL
        SELECT format('statistics %I', s.stxname), 'extended statistics', 'hold plaintext: DROP STATISTICS'
        FROM pg_statistic_ext AS s WHERE s.stxrelid = $1 AND (of_column = ANY (s.stxkeys::smallint[]) OR EXISTS (
            SELECT FROM pg_depend AS d WHERE (d.classid, d.objid) = ('pg_statistic_ext'::regclass, s.oid) AND d.refobjid = $1 AND d.refobjsubid = of_column))
        UNION ALL
        SELECT format('trigger "%s"', t.tgname), 'trigger', 'fires for each row of the run if it is one on UPDATE; see that it copies no plaintext elsewhere'
        FROM pg_trigger AS t WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D'
        UNION ALL
        SELECT format('publication %I', u.pubname), 'publication', 'sends plaintext to subscribers until it is gone here'
        FROM pg_publication_rel AS p JOIN pg_publication AS u ON u.oid = p.prpubid WHERE p.prrelid = $1;
END
$$;

REVOKE ALL ON FUNCTION @extschema@.env_encrypt_column_plan(regclass, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_encrypt_column_plan(regclass, name) TO envelope_rotate;

COMMENT ON FUNCTION @extschema@.env_encrypt_column_plan(regclass, name) IS
    'what hangs on a plaintext column that is to be encrypted, such as UNIQUE and foreign keys, and the way for each';
