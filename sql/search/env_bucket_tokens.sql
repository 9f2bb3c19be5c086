-- Ranges: the token of the bucket that a value is in, floor((value - origin) / width).
CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value smallint, index_name text, width bigint, origin bigint DEFAULT 0, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_smallint';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value integer, index_name text, width bigint, origin bigint DEFAULT 0, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_integer';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value bigint, index_name text, width bigint, origin bigint DEFAULT 0, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_bigint';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value numeric, index_name text, width numeric, origin numeric DEFAULT 0, version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_numeric';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value date, index_name text, width integer, origin date DEFAULT date '2000-01-01', version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_date';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_token(value timestamptz, index_name text, width interval, origin timestamptz DEFAULT timestamptz '2000-01-01 00:00+00', version integer DEFAULT NULL)
    RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_bucket_token_timestamptz';

REVOKE ALL ON FUNCTION
    @extschema@.env_bucket_token(smallint, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(integer, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(bigint, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(numeric, text, numeric, numeric, integer),
    @extschema@.env_bucket_token(date, text, integer, date, integer),
    @extschema@.env_bucket_token(timestamptz, text, interval, timestamptz, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_bucket_token(smallint, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(integer, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(bigint, text, bigint, bigint, integer),
    @extschema@.env_bucket_token(numeric, text, numeric, numeric, integer),
    @extschema@.env_bucket_token(date, text, integer, date, integer),
    @extschema@.env_bucket_token(timestamptz, text, interval, timestamptz, integer)
    TO envelope_search;

COMMENT ON FUNCTION @extschema@.env_bucket_token(smallint, text, bigint, bigint, integer) IS
    'the token of the bucket of a smallint';
COMMENT ON FUNCTION @extschema@.env_bucket_token(integer, text, bigint, bigint, integer) IS
    'the token of the bucket of a integer';
COMMENT ON FUNCTION @extschema@.env_bucket_token(bigint, text, bigint, bigint, integer) IS
    'the token of the bucket of a bigint';
COMMENT ON FUNCTION @extschema@.env_bucket_token(numeric, text, numeric, numeric, integer) IS
    'the token of the bucket of a numeric';
COMMENT ON FUNCTION @extschema@.env_bucket_token(date, text, integer, date, integer) IS
    'the token of the bucket of a date';
COMMENT ON FUNCTION @extschema@.env_bucket_token(timestamptz, text, interval, timestamptz, integer) IS
    'the token of the bucket of a timestamptz';


-- Of all buckets from one value to another, under all versions of the index key that are not retired: = ANY (tokens).
CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low smallint, high smallint, index_name text, width bigint, origin bigint DEFAULT 0,
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_smallint';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low integer, high integer, index_name text, width bigint, origin bigint DEFAULT 0,
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_integer';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low bigint, high bigint, index_name text, width bigint, origin bigint DEFAULT 0,
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_bigint';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low numeric, high numeric, index_name text, width numeric, origin numeric DEFAULT 0,
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_numeric';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low date, high date, index_name text, width integer, origin date DEFAULT date '2000-01-01',
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_date';

CREATE OR REPLACE FUNCTION @extschema@.env_bucket_tokens(low timestamptz, high timestamptz, index_name text, width interval, origin timestamptz DEFAULT timestamptz '2000-01-01 00:00+00',
    max_buckets integer DEFAULT 1000) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 100 AS 'MODULE_PATHNAME', 'env_bucket_tokens_timestamptz';

REVOKE ALL ON FUNCTION
    @extschema@.env_bucket_tokens(smallint, smallint, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(integer, integer, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(bigint, bigint, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(numeric, numeric, text, numeric, numeric, integer),
    @extschema@.env_bucket_tokens(date, date, text, integer, date, integer),
    @extschema@.env_bucket_tokens(timestamptz, timestamptz, text, interval, timestamptz, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_bucket_tokens(smallint, smallint, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(integer, integer, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(bigint, bigint, text, bigint, bigint, integer),
    @extschema@.env_bucket_tokens(numeric, numeric, text, numeric, numeric, integer),
    @extschema@.env_bucket_tokens(date, date, text, integer, date, integer),
    @extschema@.env_bucket_tokens(timestamptz, timestamptz, text, interval, timestamptz, integer)
    TO envelope_search;

COMMENT ON FUNCTION @extschema@.env_bucket_tokens(smallint, smallint, text, bigint, bigint, integer) IS
    'the tokens of all buckets from one smallint to another';
COMMENT ON FUNCTION @extschema@.env_bucket_tokens(integer, integer, text, bigint, bigint, integer) IS
    'the tokens of all buckets from one integer to another';
COMMENT ON FUNCTION @extschema@.env_bucket_tokens(bigint, bigint, text, bigint, bigint, integer) IS
    'the tokens of all buckets from one bigint to another';
COMMENT ON FUNCTION @extschema@.env_bucket_tokens(numeric, numeric, text, numeric, numeric, integer) IS
    'the tokens of all buckets from one numeric to another';
COMMENT ON FUNCTION @extschema@.env_bucket_tokens(date, date, text, integer, date, integer) IS
    'the tokens of all buckets from one date to another';
COMMENT ON FUNCTION @extschema@.env_bucket_tokens(timestamptz, timestamptz, text, interval, timestamptz, integer) IS
    'the tokens of all buckets from one timestamptz to another';
