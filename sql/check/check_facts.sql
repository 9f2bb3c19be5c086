-- What env_check asks the library: of this process, of the values of a table, of the key providers. Each answers in JSON.
CREATE OR REPLACE FUNCTION envelope_internal.check_server() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'env_check_server';

-- As count_values, and with rows_wanted, if it is not null, of so many rows only.
CREATE OR REPLACE FUNCTION envelope_internal.check_values(relation pg_catalog.oid, column_numbers smallint[], rows_wanted bigint)
    RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT COST 100000 AS 'MODULE_PATHNAME', 'env_check_values';

CREATE OR REPLACE FUNCTION envelope_internal.describe_keys(key_ids jsonb) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_check_keys';

REVOKE ALL ON FUNCTION envelope_internal.check_server(), envelope_internal.check_values(pg_catalog.oid, smallint[], bigint),
    envelope_internal.describe_keys(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_server(), envelope_internal.check_values(pg_catalog.oid, smallint[], bigint)
    TO envelope_admin, pg_monitor;
-- It calls KMS.
GRANT EXECUTE ON FUNCTION envelope_internal.describe_keys(jsonb) TO envelope_admin;

COMMENT ON FUNCTION envelope_internal.check_server() IS
    'part of env_check: what this process is set to and sees';
COMMENT ON FUNCTION envelope_internal.check_values(pg_catalog.oid, smallint[], bigint) IS
    'part of env_check: what the values of a table''s columns are';
COMMENT ON FUNCTION envelope_internal.describe_keys(jsonb) IS
    'part of env_check: what the key providers say of keys';
