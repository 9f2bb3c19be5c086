-- Prefixes: an array of tokens for each value, of which a search has one; a GIN index finds it.
CREATE OR REPLACE FUNCTION @extschema@.env_prefix_tokens(value text, index_name text, lengths integer[], version integer DEFAULT NULL) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 30 AS 'MODULE_PATHNAME', 'env_prefix_tokens';

CREATE OR REPLACE FUNCTION @extschema@.env_prefix_token(needle text, index_name text, lengths integer[], version integer DEFAULT NULL) RETURNS bytea
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_prefix_token';

CREATE OR REPLACE FUNCTION @extschema@.env_prefix_token_candidates(needle text, index_name text, lengths integer[]) RETURNS bytea[]
    LANGUAGE C STABLE PARALLEL SAFE CALLED ON NULL INPUT COST 15 AS 'MODULE_PATHNAME', 'env_prefix_token_candidates';

REVOKE ALL ON FUNCTION
    @extschema@.env_prefix_tokens(text, text, integer[], integer),
    @extschema@.env_prefix_token(text, text, integer[], integer),
    @extschema@.env_prefix_token_candidates(text, text, integer[])
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @extschema@.env_prefix_tokens(text, text, integer[], integer),
    @extschema@.env_prefix_token(text, text, integer[], integer),
    @extschema@.env_prefix_token_candidates(text, text, integer[])
    TO envelope_search;

COMMENT ON FUNCTION @extschema@.env_prefix_tokens(text, text, integer[], integer) IS
    'the tokens of the prefixes of a text, of these lengths in characters';
COMMENT ON FUNCTION @extschema@.env_prefix_token(text, text, integer[], integer) IS
    'the token of the longest of these prefixes that a search text has';
COMMENT ON FUNCTION @extschema@.env_prefix_token_candidates(text, text, integer[]) IS
    'the tokens of the longest of these prefixes that a search text has, under all versions of an index key that are not retired';
