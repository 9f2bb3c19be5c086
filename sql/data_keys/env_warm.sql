-- Unwrap the data keys of many values at once: an aggregate over any query, and two short forms of it.
CREATE OR REPLACE FUNCTION envelope_internal.warm_transition(internal, value bytea) RETURNS internal
    LANGUAGE C STABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_warm_transition';

CREATE OR REPLACE FUNCTION envelope_internal.warm_final(internal) RETURNS @extschema@.env_warm_result
    LANGUAGE C STABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_warm_final';

CREATE OR REPLACE AGGREGATE @extschema@.env_warm(value bytea) (
    SFUNC = envelope_internal.warm_transition,
    STYPE = internal,
    FINALFUNC = envelope_internal.warm_final,
    PARALLEL = RESTRICTED
);

-- The same for the functions below, under a name that nobody else can overload.
CREATE OR REPLACE AGGREGATE envelope_internal.warm(value bytea) (
    SFUNC = envelope_internal.warm_transition,
    STYPE = internal,
    FINALFUNC = envelope_internal.warm_final,
    PARALLEL = RESTRICTED
);

CREATE OR REPLACE FUNCTION @extschema@.env_warm("values" bytea[], OUT cold bigint, OUT warm bigint, OUT failed bigint) RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- array_agg of no rows is null: no values.
    SELECT (result).* INTO cold, warm, failed
    FROM (SELECT envelope_internal.warm(value) AS result FROM unnest("values") AS value) AS aggregated;
END
$$;

CREATE OR REPLACE FUNCTION @extschema@.env_warm(relation regclass, column_name name, OUT cold bigint, OUT warm bigint, OUT failed bigint)
    RETURNS record
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type_name text;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('relation', relation::oid, 'column_name', column_name));
    WITH RECURSIVE base (type) AS (
        SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped
        UNION ALL
        SELECT t.typbasetype FROM base AS b JOIN pg_type AS t ON t.oid = b.type AND t.typbasetype <> 0
    )
    SELECT format_type(a.atttypid, a.atttypmod) INTO type_name
    FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped
      AND NOT EXISTS (SELECT FROM base AS b WHERE b.type = 'bytea'::regtype);
    IF type_name IS NOT NULL THEN
        RAISE 'column "%" of % is %; an encrypted column is bytea', column_name, relation, type_name
            USING ERRCODE = 'datatype_mismatch', HINT = 'env_inventory_columns() lists the columns that can hold encrypted values.';
    END IF;
    EXECUTE format('SELECT (result).* FROM (SELECT envelope_internal.warm(%I) AS result FROM %s) AS aggregated',
                   column_name, relation)
    INTO cold, warm, failed;
END
$$;

REVOKE ALL ON FUNCTION
    envelope_internal.warm_transition(internal, bytea),
    envelope_internal.warm_final(internal),
    @extschema@.env_warm(bytea),
    envelope_internal.warm(bytea),
    @extschema@.env_warm(bytea[]),
    @extschema@.env_warm(regclass, name)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.warm_transition(internal, bytea),
    envelope_internal.warm_final(internal),
    @extschema@.env_warm(bytea),
    envelope_internal.warm(bytea),
    @extschema@.env_warm(bytea[]),
    @extschema@.env_warm(regclass, name)
    TO envelope_decrypt;

COMMENT ON FUNCTION envelope_internal.warm_transition(internal, bytea) IS
    'transition function of the aggregate env_warm';
COMMENT ON FUNCTION envelope_internal.warm_final(internal) IS
    'final function of the aggregate env_warm';
COMMENT ON AGGREGATE @extschema@.env_warm(bytea) IS
    'unwrap the data keys of the values of a query, many at a time, so that decrypting them waits for no KMS call';
COMMENT ON AGGREGATE envelope_internal.warm(bytea) IS
    'env_warm, for the extension itself';
COMMENT ON FUNCTION @extschema@.env_warm(bytea[]) IS
    'unwrap the data keys of an array of values, many at a time';
COMMENT ON FUNCTION @extschema@.env_warm(regclass, name) IS
    'unwrap the data keys of a column, many at a time';
