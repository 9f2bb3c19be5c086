-- Triggers, index expressions, CHECK constraints and generated columns run with the rights of whoever updates the table. So they
-- must be made of functions whose owner has those rights anyway, and of none that runs what it is given as text. Holds a lock
-- under which nobody can add more of them. To PREPARE an UPDATE takes it, and runs nothing.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_trust(relation oid, changed name) RETURNS void
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
    EXECUTE format('PREPARE env_rotation_trust AS UPDATE ONLY %s SET %I = NULL WHERE false', $1::regclass, $2);
    DEALLOCATE env_rotation_trust;
    WITH expression (object, tree) AS (
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
    ), code (object, function) AS (
        SELECT format('trigger "%s"', tgname), tgfoid FROM pg_trigger WHERE tgrelid = $1 AND tgenabled <> 'D'
        UNION ALL
        SELECT object, called[1]::oid FROM expression, regexp_matches(tree, ':(?:func|opfunc)id ([0-9]+)', 'g') AS called
    ), type (object, type) AS (
        SELECT format('column "%s"', attname), atttypid FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT object, named[1]::oid FROM expression, regexp_matches(tree, ':[a-z]*type ([0-9]+)', 'g') AS named
    )
    SELECT string_agg(DISTINCT object, ', ') INTO found
    FROM (
        SELECT object FROM code JOIN pg_proc AS p ON p.oid = function
        WHERE NOT pg_has_role(proowner, caller, 'MEMBER') OR (provolatile = 'v' AND prorettype <> 'trigger'::regtype)
        UNION ALL
        SELECT object FROM type JOIN pg_type AS t ON t.oid = type.type WHERE typtype = 'd' AND NOT pg_has_role(typowner, caller, 'MEMBER')
    ) AS untrusted;
    IF found IS NOT NULL THEN
        RAISE 'role % cannot change % without running code of its owner', current_user, $1::regclass
            USING ERRCODE = 'insufficient_privilege', DETAIL = format('It would run with the rights of %I: %s.', current_user, found),
                  HINT = format('SET ROLE %I and CALL again; that role needs to be in envelope_rotate.', owner::regrole);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_trust(oid, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_trust(oid, name) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_trust(oid, name) IS
    'part of env_rotate: an error if code of a table would run with rights that its owner lacks';
