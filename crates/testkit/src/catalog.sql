-- All that the catalog says of the extension: a row for each object, with its name first. What differs between majors of
-- PostgreSQL, and between two databases (oids, the order in which things were made), is left out.
WITH extension AS (
    SELECT * FROM pg_extension WHERE extname = 'envelope_pg'
), member AS (
    SELECT d.classid, d.objid FROM pg_depend AS d JOIN extension AS e ON d.refobjid = e.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
), described (object, lines) AS (
    SELECT format('extension %s', e.extname), ARRAY[
               'version ' || e.extversion,
               'schema ' || e.extnamespace::regnamespace,
               'relocatable ' || e.extrelocatable,
               'dumped ' || coalesce((SELECT string_agg(c::regclass::text, ', ') FROM unnest(e.extconfig) AS c), 'nothing')]
    FROM extension AS e
    UNION ALL
    SELECT format('schema %s', n.oid::regnamespace), ARRAY[
               'owner ' || pg_get_userbyid(n.nspowner),
               'access ' || coalesce(n.nspacl::text, 'default'),
               'comment ' || obj_description(n.oid, 'pg_namespace')]
    FROM member JOIN pg_namespace AS n ON classid = 'pg_namespace'::regclass AND objid = n.oid
    UNION ALL
    SELECT format('%s %s', CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
                  p.oid::regprocedure), ARRAY[
               'arguments ' || pg_get_function_arguments(p.oid),
               'returns ' || pg_get_function_result(p.oid),
               concat_ws(', ', l.lanname,
                   CASE p.provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END,
                   CASE p.proparallel WHEN 's' THEN 'PARALLEL SAFE' WHEN 'r' THEN 'PARALLEL RESTRICTED' ELSE 'PARALLEL UNSAFE' END,
                   CASE WHEN p.proisstrict THEN 'STRICT' ELSE 'CALLED ON NULL INPUT' END,
                   CASE WHEN p.prosecdef THEN 'SECURITY DEFINER' END, CASE WHEN p.proleakproof THEN 'LEAKPROOF' END,
                   'COST ' || p.procost, 'ROWS ' || nullif(p.prorows, 0), 'SUPPORT ' || nullif(p.prosupport, 0)::regproc),
               'SET ' || array_to_string(p.proconfig, ' SET '),
               'aggregate of ' || a.aggtransfn::regprocedure || ', ' || a.aggfinalfn::regprocedure || ', '
                   || a.aggtranstype::regtype || ', ' || coalesce(a.agginitval, 'no initial value'),
               'owner ' || pg_get_userbyid(p.proowner),
               'access ' || coalesce(p.proacl::text, 'default'),
               'comment ' || obj_description(p.oid, 'pg_proc'),
               'library ' || p.probin,
               -- With a bar in front of each line, so that a blank one does not look like the end.
               'body' || E'\n' || regexp_replace(coalesce(pg_get_function_sqlbody(p.oid), nullif(p.prosrc, 'aggregate_dummy')), '^', '  | ', 'gn')]
    FROM member
    JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid
    JOIN pg_language AS l ON l.oid = p.prolang
    LEFT JOIN pg_aggregate AS a ON a.aggfnoid = p.oid
    UNION ALL
    SELECT format('%s %s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
                           WHEN 'c' THEN 'columns of type' ELSE c.relkind::text END, c.oid::regclass),
           ARRAY[
               CASE WHEN c.relkind = 'r' THEN format('row security %s, forced %s, persistence %s',
                                                      c.relrowsecurity, c.relforcerowsecurity, c.relpersistence) END,
               'options ' || array_to_string(c.reloptions, ', '),
               'sequence ' || (SELECT concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                                                s.seqcycle) FROM pg_sequence AS s WHERE s.seqrelid = c.oid)]
           || ARRAY(
               SELECT concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod),
                                CASE WHEN a.attnotnull THEN 'not null' END,
                                'identity ' || nullif(a.attidentity::text, ''), 'generated ' || nullif(a.attgenerated::text, ''),
                                'default ' || pg_get_expr(d.adbin, d.adrelid),
                                'collation ' || nullif(a.attcollation, t.typcollation)::regcollation,
                                'access ' || a.attacl::text, 'comment ' || col_description(c.oid, a.attnum))
               FROM pg_attribute AS a
               JOIN pg_type AS t ON t.oid = a.atttypid
               LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S' ORDER BY a.attnum)
           || ARRAY(
               -- PostgreSQL 18 has NOT NULL among them.
               SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
               WHERE conrelid = c.oid AND contype <> 'n' ORDER BY conname)
           || ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = c.oid ORDER BY 1)
           || ARRAY(
               SELECT concat_ws(' ', 'policy', polname, polcmd, CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END,
                                'roles ' || polroles::regrole[]::text,
                                'using ' || pg_get_expr(polqual, polrelid), 'check ' || pg_get_expr(polwithcheck, polrelid))
               FROM pg_policy WHERE polrelid = c.oid ORDER BY polname)
           || ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal ORDER BY tgname)
           || ARRAY(SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = c.oid AND rulename <> '_RETURN' ORDER BY rulename)
           || ARRAY[
               'owner ' || pg_get_userbyid(c.relowner),
               -- PostgreSQL 17 gives owners MAINTAIN.
               'access ' || regexp_replace(coalesce(c.relacl::text, 'default'), '(=arwdDxt)m/', '\1/', 'g'),
               'comment ' || obj_description(c.oid, 'pg_class'),
               CASE WHEN c.relkind = 'v' THEN 'body' || E'\n' || regexp_replace(pg_get_viewdef(c.oid), '^', '  | ', 'gn') END]
    FROM member JOIN pg_class AS c ON classid = 'pg_class'::regclass AND objid = c.oid
    UNION ALL
    SELECT format('type %s', t.oid::regtype),
           ARRAY(SELECT concat_ws(' ', 'column', a.attname, format_type(a.atttypid, a.atttypmod))
                 FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 ORDER BY a.attnum)
           || ARRAY['owner ' || pg_get_userbyid(t.typowner), 'access ' || coalesce(t.typacl::text, 'default'),
                    'comment ' || obj_description(t.oid, 'pg_type')]
    FROM member
    JOIN pg_type AS t ON classid = 'pg_type'::regclass AND objid = t.oid
    LEFT JOIN pg_class AS row_of ON row_of.oid = t.typrelid
    -- PostgreSQL 17 lists the types of rows and of arrays, too.
    WHERE t.typcategory <> 'A' AND coalesce(row_of.relkind, 'c') = 'c'
    UNION ALL
    SELECT format('foreign-data wrapper %s', w.fdwname), ARRAY[
               'owner ' || pg_get_userbyid(w.fdwowner),
               'handler ' || w.fdwhandler::regproc || ', validator ' || w.fdwvalidator::regproc,
               'access ' || coalesce(w.fdwacl::text, 'default'),
               'comment ' || obj_description(w.oid, 'pg_foreign_data_wrapper')]
    FROM member JOIN pg_foreign_data_wrapper AS w ON classid = 'pg_foreign_data_wrapper'::regclass AND objid = w.oid
    UNION ALL
    -- Operators, casts, event triggers and what else there may be one day.
    SELECT pg_describe_object(classid, objid, 0), ARRAY[]::text[] FROM member
    WHERE classid NOT IN ('pg_namespace'::regclass, 'pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass,
                          'pg_foreign_data_wrapper'::regclass)
)
SELECT object, object || E'\n' || (SELECT coalesce(string_agg('  ' || line || E'\n', '' ORDER BY number), '')
                                   FROM unnest(lines) WITH ORDINALITY AS u (line, number) WHERE line IS NOT NULL)
FROM described ORDER BY object COLLATE "C"
