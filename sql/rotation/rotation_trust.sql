-- Triggers, index expressions, partition keys, CHECK constraints, generated columns, domains and casts run with the rights of whoever
-- reads or updates the table. So they must be made of functions whose owner has those rights anyway, and of none that runs what it is
-- given: immutable ones, as those that read a table or type by its name are not, or else such as now() and date <= timestamptz.
-- Holds locks under which nobody can add more of them, or put another table in the place of this one.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_trust(relation oid) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
DECLARE
    caller CONSTANT oid := (SELECT oid FROM pg_roles WHERE rolname = current_user);
    owner CONSTANT oid := (SELECT relowner FROM pg_class WHERE oid = $1);
    found text;
BEGIN
    IF pg_has_role(owner, caller, 'MEMBER') THEN
        RETURN;
    END IF;
    -- Its snapshot would be older than the lock.
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE 'table % of another owner cannot be checked in a % transaction', $1::regclass, current_setting('transaction_isolation')
            USING ERRCODE = 'active_sql_transaction',
                  HINT = format('SET default_transaction_isolation = ''read committed'' first, or SET ROLE %I.', owner::regrole);
    END IF;
    PERFORM envelope_internal.lock_definition($1);
    PERFORM envelope_internal.lock_schema($1);
    WITH RECURSIVE ancestor (member) AS (
        SELECT $1
        UNION
        SELECT inhparent FROM pg_inherits JOIN ancestor ON inhrelid = member
    ), expression (object, tree) AS (
        SELECT format('trigger "%s"', tgname), tgqual::text FROM pg_trigger WHERE tgrelid = $1
        UNION ALL
        SELECT format('constraint "%s"', conname), conbin::text FROM pg_constraint WHERE conrelid = $1
        UNION ALL
        SELECT format('index %s', indexrelid::regclass), concat(indexprs, indpred) FROM pg_index WHERE indrelid = $1
        UNION ALL
        SELECT format('column "%s"', attname), adbin::text
        FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE adrelid = $1 AND attgenerated <> ''
        UNION ALL
        SELECT format('statistics "%s"', stxname), to_jsonb(s) ->> 'stxexprs' FROM pg_statistic_ext AS s WHERE stxrelid = $1
        UNION ALL
        SELECT format('partition key of %s', partrelid::regclass), partexprs::text FROM pg_partitioned_table JOIN ancestor ON member = partrelid
    ), type (object, type) AS (
        SELECT object, type FROM (
            SELECT format('column "%s"', attname), atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
            UNION ALL
            SELECT object, named[1]::oid FROM expression, regexp_matches(tree, ':[a-z_]*type(?:id|Id)? ([0-9]+)', 'g') AS named
        ) AS first (object, type)
        UNION
        -- And what they are made of.
        SELECT object, part
        FROM type JOIN pg_type AS t ON t.oid = type.type
        LEFT JOIN pg_range AS r ON t.oid IN (r.rngtypid, r.rngmultitypid)
        CROSS JOIN LATERAL (
            SELECT unnest(ARRAY[t.typbasetype, t.typelem, r.rngsubtype, r.rngtypid])
            UNION ALL
            SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
        ) AS made_of (part)
        WHERE part <> 0
    ), trusted AS MATERIALIZED (
        SELECT oid FROM pg_roles WHERE pg_has_role(oid, caller, 'MEMBER')
    ), code (object, function, is_trigger) AS (
        SELECT format('trigger "%s"', tgname), tgfoid, true FROM pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D'
        UNION ALL
        SELECT object, called[1]::oid, false FROM expression, regexp_matches(tree, ':(?:func|opfunc)id ([0-9]+)', 'g') AS called
        UNION ALL
        SELECT object, unnest(ARRAY[rngcanonical, rngsubdiff]), false FROM type JOIN pg_range ON rngtypid = type.type
    )
    SELECT string_agg(DISTINCT object, ', ') INTO found
    FROM (
        SELECT object FROM code JOIN pg_proc AS p ON p.oid = function
        WHERE p.proowner NOT IN (SELECT oid FROM trusted)
           OR (NOT is_trigger AND provolatile <> 'i' AND (provolatile = 'v' OR EXISTS (
               SELECT FROM unnest(p.proargtypes::oid[] || p.prorettype) AS u (type) JOIN pg_type AS t ON t.oid = u.type
               WHERE t.typcategory NOT IN ('B', 'D', 'T') OR t.typtype <> 'b' OR t.typowner NOT IN (SELECT oid FROM trusted))))
        UNION ALL
        SELECT object FROM type JOIN pg_type AS t ON t.oid = type.type
        WHERE t.typowner NOT IN (SELECT oid FROM trusted)
          AND (t.typtype = 'd' OR EXISTS (
              SELECT FROM pg_cast JOIN pg_proc AS p ON p.oid = castfunc
              WHERE t.oid IN (castsource, casttarget) AND p.proowner NOT IN (SELECT oid FROM trusted)))
    ) AS untrusted;
    IF found IS NOT NULL THEN
        RAISE 'role % cannot read or change % without running code of its owner', current_user, $1::regclass
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It would run with the rights of %I: %s.', current_user, found),
                  HINT = format('SET ROLE %I and do it again; that role needs to be in envelope_rotate.', owner::regrole);
    END IF;
END
$$;

-- Whoever may read the table. As strong as it takes to keep CREATE INDEX CONCURRENTLY and CREATE STATISTICS out, too.
CREATE OR REPLACE FUNCTION envelope_internal.lock_definition(relation oid) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_lock_definition';

-- No schema of another name, with a table of the same name in it, takes the place of the one that a table is in: ALTER SCHEMA ... RENAME
-- waits for nothing but the row. SECURITY DEFINER as only superusers may lock it.
CREATE OR REPLACE FUNCTION envelope_internal.lock_schema(relation oid) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('transaction_read_only') = 'off' THEN
        PERFORM FROM pg_namespace AS n WHERE n.oid = (SELECT c.relnamespace FROM pg_class AS c WHERE c.oid = $1) FOR KEY SHARE OF n;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_trust(oid), envelope_internal.lock_definition(oid), envelope_internal.lock_schema(oid)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_trust(oid), envelope_internal.lock_definition(oid), envelope_internal.lock_schema(oid)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_trust(oid) IS
    'part of env_rotate: an error if code of a table would run with rights that its owner lacks';
COMMENT ON FUNCTION envelope_internal.lock_definition(oid) IS
    'part of env_rotate: keep what runs for the rows of a table as it is until the transaction''s end';
COMMENT ON FUNCTION envelope_internal.lock_schema(oid) IS
    'part of env_rotate: keep the name of a table''s schema as it is until the transaction''s end';
