-- Without the planner: an index on an expression, a view put in the place of a table, or a policy would run what the table's owner
-- wrote with the rights of whoever takes the inventory.
CREATE OR REPLACE FUNCTION envelope_internal.count_values(relation pg_catalog.oid, column_numbers smallint[]) RETURNS pg_catalog.jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT COST 100000 AS 'MODULE_PATHNAME', 'env_count_values';

REVOKE ALL ON FUNCTION envelope_internal.count_values(pg_catalog.oid, smallint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.count_values(pg_catalog.oid, smallint[]) TO envelope_rotate, envelope_admin;

COMMENT ON FUNCTION envelope_internal.count_values(pg_catalog.oid, smallint[]) IS
    'part of env_inventory: the values of a table''s columns by key';
