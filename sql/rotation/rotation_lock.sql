CREATE OR REPLACE FUNCTION envelope_internal.rotation_lock(lock_key bigint) RETURNS boolean
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_rotation_lock';

CREATE OR REPLACE FUNCTION envelope_internal.rotation_unlock(lock_key bigint) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_rotation_unlock';

CREATE OR REPLACE FUNCTION envelope_internal.rotation_lock_key(relation oid, column_number smallint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN pg_catalog.hashtextextended(pg_catalog.format('envelope_pg rotation of %s.%s', relation, column_number), 0);

REVOKE ALL ON FUNCTION
    envelope_internal.rotation_lock(bigint),
    envelope_internal.rotation_unlock(bigint),
    envelope_internal.rotation_lock_key(oid, smallint)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.rotation_lock(bigint),
    envelope_internal.rotation_unlock(bigint),
    envelope_internal.rotation_lock_key(oid, smallint)
    TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_lock(bigint) IS
    'part of env_rotate: take the advisory lock of a run, which an error of the CALL gives back';
COMMENT ON FUNCTION envelope_internal.rotation_unlock(bigint) IS
    'part of env_rotate: give the advisory lock of a run back';
COMMENT ON FUNCTION envelope_internal.rotation_lock_key(oid, smallint) IS
    'the key of the advisory lock that the run of a column holds';
