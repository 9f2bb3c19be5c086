-- For searches while an index key is rotated: = ANY (candidates).
CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value text, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_text';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value bytea, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value smallint, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_smallint';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value integer, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_integer';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value bigint, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_bigint';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value numeric, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_numeric';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value date, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_date';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value timestamptz, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_timestamptz';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value uuid, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_candidates_uuid';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value boolean, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_boolean';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index_candidates(value timestamp, index_name text, bits integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_timestamp';

REVOKE ALL ON FUNCTION
    @extschema@.env_blind_index_candidates(text, text, integer),
    @extschema@.env_blind_index_candidates(bytea, text, integer),
    @extschema@.env_blind_index_candidates(smallint, text, integer),
    @extschema@.env_blind_index_candidates(integer, text, integer),
    @extschema@.env_blind_index_candidates(bigint, text, integer),
    @extschema@.env_blind_index_candidates(numeric, text, integer),
    @extschema@.env_blind_index_candidates(date, text, integer),
    @extschema@.env_blind_index_candidates(timestamptz, text, integer),
    @extschema@.env_blind_index_candidates(uuid, text, integer),
    @extschema@.env_blind_index_candidates(boolean, text, integer),
    @extschema@.env_blind_index_candidates(timestamp, text, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_blind_index_candidates(text, text, integer),
    @extschema@.env_blind_index_candidates(bytea, text, integer),
    @extschema@.env_blind_index_candidates(smallint, text, integer),
    @extschema@.env_blind_index_candidates(integer, text, integer),
    @extschema@.env_blind_index_candidates(bigint, text, integer),
    @extschema@.env_blind_index_candidates(numeric, text, integer),
    @extschema@.env_blind_index_candidates(date, text, integer),
    @extschema@.env_blind_index_candidates(timestamptz, text, integer),
    @extschema@.env_blind_index_candidates(uuid, text, integer),
    @extschema@.env_blind_index_candidates(boolean, text, integer),
    @extschema@.env_blind_index_candidates(timestamp, text, integer)
    TO envelope_search;

COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(text, text, integer) IS
    'the tokens of a text under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(bytea, text, integer) IS
    'the tokens of a bytea under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(smallint, text, integer) IS
    'the tokens of a smallint under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(integer, text, integer) IS
    'the tokens of a integer under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(bigint, text, integer) IS
    'the tokens of a bigint under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(numeric, text, integer) IS
    'the tokens of a numeric under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(date, text, integer) IS
    'the tokens of a date under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(timestamptz, text, integer) IS
    'the tokens of a timestamptz under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(uuid, text, integer) IS
    'the tokens of a uuid under all versions of an index key that are not retired';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(boolean, text, integer) IS
    'refuses a boolean';
COMMENT ON FUNCTION @extschema@.env_blind_index_candidates(timestamp, text, integer) IS
    'refuses a timestamp';
