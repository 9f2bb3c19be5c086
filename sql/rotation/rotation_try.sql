-- Refuses what would fail for each row, before there is a run: tries some of the first values of each table.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_try(root oid, p jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    method CONSTANT text := p ->> 'method';
    opened CONSTANT name := CASE method WHEN 'decrypt' THEN p ->> 'source' ELSE p ->> 'column' END;
    aad CONSTANT text := CASE
        WHEN p ? 'aad_column' THEN format('CAST(t.%I AS pg_catalog.text)', p ->> 'aad_column')
        WHEN p ? 'aad_expression' THEN 'CAST((' || (p ->> 'aad_expression') || ') AS pg_catalog.text)' END;
    leaf oid;
    stub bytea;
    tried bigint;
    bound bigint;
    opens bigint;
BEGIN
    IF p ? 'aad_expression' THEN
        -- Under the caller's search_path in the batches; a name that is not there is said here.
        PERFORM envelope_internal.rotation_check_expression(root, p ->> 'aad_expression');
    END IF;
    FOR leaf IN SELECT l.leaf FROM envelope_internal.rotation_leaves(root) AS l WHERE l.kind = 'r' LIMIT 10 LOOP
        IF method = 'rewrap' THEN
            FOR stub IN EXECUTE format(
                'SELECT DISTINCT envelope_internal.dek_stub(s.v) FROM (SELECT t.%I AS v FROM ONLY %s AS t WHERE t.%I IS NOT NULL LIMIT 100) AS s',
                opened, leaf::regclass, opened)
            LOOP
                CONTINUE WHEN stub IS NULL OR envelope_internal.rotation_wanted(p, ARRAY[stub]) = '{}';
                BEGIN
                    PERFORM envelope_internal.rewrap_check(stub, p ->> 'to_key');
                EXCEPTION WHEN insufficient_privilege THEN
                    -- One of several keys perhaps: its rows are failures.
                    NULL;
                END;
            END LOOP;
        ELSIF method = 'reencrypt' THEN
            EXECUTE format(
                'SELECT count(*), count(*) FILTER (WHERE s.has_aad)
                 FROM (SELECT (envelope_internal.inspect(t.%I)).has_aad FROM ONLY %s AS t WHERE envelope_internal.is_envelope(t.%I) LIMIT 100) AS s',
                opened, leaf::regclass, opened) INTO tried, bound;
            IF tried > 0 AND bound = tried AND aad IS NULL THEN
                RAISE 'the values of column "%" of % are bound to an aad', opened, leaf::regclass
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Give it as aad_column or aad_expression.';
            ELSIF tried > 0 AND bound = 0 AND aad IS NOT NULL THEN
                RAISE 'the values of column "%" of % are bound to no aad', opened, leaf::regclass
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave aad_column and aad_expression out.';
            ELSIF bound > 0 THEN
                PERFORM envelope_internal.rotation_try_aad(leaf, p, aad);
            END IF;
        END IF;
    END LOOP;
END
$$;

-- Parsed, and not run. Not with a fixed search_path: as in the batches, the names in it are the caller's.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_check_expression(root oid, expression text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE pg_catalog.format('PREPARE env_rotation_expression AS SELECT CAST((%s) AS pg_catalog.text) FROM ONLY %s AS t',
        expression, root::pg_catalog.regclass);
    DEALLOCATE env_rotation_expression;
END
$$;

-- An error if none of the first values opens. As above the names in the aad are the caller's, and all others are whole.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_try_aad(leaf oid, p pg_catalog.jsonb, aad text) RETURNS void
    LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    rotated CONSTANT text := pg_catalog.jsonb_extract_path_text(p, 'column');
    tries CONSTANT integer := 5;
    failed integer := 0;
BEGIN
    FOR row_number IN 0..4 LOOP
        BEGIN
            EXECUTE pg_catalog.format(
                'SELECT envelope_internal.reencrypt(t.%1$I, %2$L, %3$s) FROM ONLY %4$s AS t
                 WHERE envelope_internal.is_envelope(t.%1$I)
                   AND pg_catalog.cardinality(envelope_internal.rotation_wanted($1, ARRAY[envelope_internal.dek_stub(t.%1$I)]))
                       OPERATOR(pg_catalog.>) 0 OFFSET %5$s LIMIT 1',
                rotated, pg_catalog.jsonb_extract_path_text(p, 'to_key'), aad, leaf::pg_catalog.regclass, row_number) USING p;
            RETURN;
        EXCEPTION
            WHEN data_exception THEN
                failed := failed OPERATOR(pg_catalog.+) 1;
            -- Of a value or key that may be the only one.
            WHEN OTHERS THEN
                RETURN;
        END;
    END LOOP;
    IF failed OPERATOR(pg_catalog.=) tries THEN
        RAISE 'none of the first values of % opens with this aad', leaf::pg_catalog.regclass
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give the aad that the values were encrypted with, as aad_column or aad_expression.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_try(oid, jsonb), envelope_internal.rotation_check_expression(oid, text),
    envelope_internal.rotation_try_aad(oid, jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_try(oid, jsonb), envelope_internal.rotation_check_expression(oid, text),
    envelope_internal.rotation_try_aad(oid, jsonb, text)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_try(oid, jsonb) IS
    'part of env_rotate: refuse what would fail for each row';
COMMENT ON FUNCTION envelope_internal.rotation_try_aad(oid, jsonb, text) IS
    'part of env_rotate: an error if an aad opens none of the first values';
COMMENT ON FUNCTION envelope_internal.rotation_check_expression(oid, text) IS
    'part of env_rotate: an error if an aad_expression does not fit the table';
