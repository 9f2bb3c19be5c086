CREATE OR REPLACE FUNCTION envelope_internal.stat_role_json() RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'env_stat_role_json';

CREATE OR REPLACE VIEW @extschema@.env_stat_role AS
SELECT
    datname AS database, rolname AS role, generate_data_key, decrypt, re_encrypt, errors, refused, stale_serves,
    database_oid, role_oid
FROM pg_catalog.jsonb_to_recordset(envelope_internal.stat_role_json()) AS row_(
    database_oid oid, role_oid oid, generate_data_key bigint, decrypt bigint, re_encrypt bigint, errors bigint,
    refused bigint, stale_serves bigint
)
LEFT JOIN pg_catalog.pg_database ON pg_database.oid OPERATOR(pg_catalog.=) database_oid
LEFT JOIN pg_catalog.pg_roles ON pg_roles.oid OPERATOR(pg_catalog.=) role_oid;

REVOKE ALL ON FUNCTION envelope_internal.stat_role_json() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.stat_role_json() TO envelope_admin, pg_monitor;
GRANT SELECT ON @extschema@.env_stat_role TO envelope_admin, pg_monitor;

COMMENT ON FUNCTION envelope_internal.stat_role_json() IS
    'rows of the view env_stat_role';
COMMENT ON VIEW @extschema@.env_stat_role IS
    'calls to KMS that sessions caused, by database and role, since the server started: through the broker or without it';
