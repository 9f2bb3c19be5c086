-- Equality. STABLE: the token of a value is the same until the index key is rotated. Not leakproof: whoever may call it with values
-- of his choice and read the tokens can find out each value. An index on a token column is used, as the token of a constant is
-- computed once. Without bits a full token, without a version that of the latest one.
CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value text, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_text';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value bytea, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_bytea';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value smallint, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_smallint';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value integer, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_integer';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value bigint, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_bigint';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value numeric, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_numeric';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value date, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_date';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value timestamptz, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_timestamptz';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value uuid, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_uuid';

-- Refused, and not left to a cast: a boolean cannot be hidden, and a timestamp is another time in each time zone.
CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value boolean, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_boolean';

CREATE OR REPLACE FUNCTION @extschema@.env_blind_index(value timestamp, index_name text, bits integer DEFAULT NULL, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_blind_index_timestamp';

REVOKE ALL ON FUNCTION
    @extschema@.env_blind_index(text, text, integer, integer),
    @extschema@.env_blind_index(bytea, text, integer, integer),
    @extschema@.env_blind_index(smallint, text, integer, integer),
    @extschema@.env_blind_index(integer, text, integer, integer),
    @extschema@.env_blind_index(bigint, text, integer, integer),
    @extschema@.env_blind_index(numeric, text, integer, integer),
    @extschema@.env_blind_index(date, text, integer, integer),
    @extschema@.env_blind_index(timestamptz, text, integer, integer),
    @extschema@.env_blind_index(uuid, text, integer, integer),
    @extschema@.env_blind_index(boolean, text, integer, integer),
    @extschema@.env_blind_index(timestamp, text, integer, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_blind_index(text, text, integer, integer),
    @extschema@.env_blind_index(bytea, text, integer, integer),
    @extschema@.env_blind_index(smallint, text, integer, integer),
    @extschema@.env_blind_index(integer, text, integer, integer),
    @extschema@.env_blind_index(bigint, text, integer, integer),
    @extschema@.env_blind_index(numeric, text, integer, integer),
    @extschema@.env_blind_index(date, text, integer, integer),
    @extschema@.env_blind_index(timestamptz, text, integer, integer),
    @extschema@.env_blind_index(uuid, text, integer, integer),
    @extschema@.env_blind_index(boolean, text, integer, integer),
    @extschema@.env_blind_index(timestamp, text, integer, integer)
    TO envelope_search;

COMMENT ON FUNCTION @extschema@.env_blind_index(text, text, integer, integer) IS
    'the token by which rows with the same text are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(bytea, text, integer, integer) IS
    'the token by which rows with the same bytea are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(smallint, text, integer, integer) IS
    'the token by which rows with the same smallint are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(integer, text, integer, integer) IS
    'the token by which rows with the same integer are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(bigint, text, integer, integer) IS
    'the token by which rows with the same bigint are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(numeric, text, integer, integer) IS
    'the token by which rows with the same numeric are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(date, text, integer, integer) IS
    'the token by which rows with the same date are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(timestamptz, text, integer, integer) IS
    'the token by which rows with the same timestamptz are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(uuid, text, integer, integer) IS
    'the token by which rows with the same uuid are found; of n bits, one that several values share';
COMMENT ON FUNCTION @extschema@.env_blind_index(boolean, text, integer, integer) IS
    'refuses a boolean';
COMMENT ON FUNCTION @extschema@.env_blind_index(timestamp, text, integer, integer) IS
    'refuses a timestamp';
