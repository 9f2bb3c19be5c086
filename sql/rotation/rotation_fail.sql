-- The row_count of all failures of a run adds up to its failures: what is not listed is counted in a record of its own.
CREATE OR REPLACE FUNCTION envelope_internal.rotation_fail(
    run bigint, leaf oid, row_tid tid, stub bytea, row_count bigint, error_code text, message text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    listed CONSTANT bigint := (SELECT count(*) FROM envelope_internal.rotation_failure AS f WHERE f.run_id = $1);
BEGIN
    UPDATE envelope_internal.rotation_run AS r SET failures = r.failures + $5 WHERE r.run_id = $1;
    UPDATE envelope_internal.rotation_failure AS f SET row_count = f.row_count + $5
    WHERE f.run_id = $1 AND $3 IS NULL AND f.tid IS NULL AND f.dek_id = envelope_internal.dek_id($4);
    IF FOUND THEN
        RETURN;
    END IF;
    IF listed < 1000 THEN
        INSERT INTO envelope_internal.rotation_failure (run_id, relation, tid, dek_id, row_count, sqlstate, message)
        SELECT $1, $2, $3, envelope_internal.dek_id($4), $5, $6,
               -- Messages of this extension have no data in them; what triggers and casts say may.
               CASE WHEN $6 IN ('22000', '22P03', '0A000', '42804', '22004', '22023', '42501', '55000', '42704', '22P05',
                                '22001', '23514', '23502', 'XX001') THEN $7 ELSE '(left out, as it may quote data)' END;
        RETURN;
    END IF;
    UPDATE envelope_internal.rotation_failure AS f SET row_count = f.row_count + $5
    WHERE f.run_id = $1 AND f.tid IS NULL AND f.dek_id IS NULL;
    IF NOT FOUND THEN
        INSERT INTO envelope_internal.rotation_failure (run_id, relation, row_count, sqlstate, message)
        SELECT $1, $2, $5, $6, 'more failures than are listed, of which this is the first';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_fail(bigint, oid, tid, bytea, bigint, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_fail(bigint, oid, tid, bytea, bigint, text, text) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_fail(bigint, oid, tid, bytea, bigint, text, text) IS
    'part of env_rotate: count and list rows that are left alone';
