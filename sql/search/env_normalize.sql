CREATE OR REPLACE FUNCTION @extschema@.env_normalize(value text, steps text[]) RETURNS text
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT COST 20 AS 'MODULE_PATHNAME', 'env_normalize';

COMMENT ON FUNCTION @extschema@.env_normalize(text, text[]) IS
    'text after these steps in their order: lower, nfkc, trim, digits, email; as the rule of a trigger does them';
