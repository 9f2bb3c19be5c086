-- Unwrap the data keys of many values at once: an aggregate over any query, and two short forms of it.
CREATE TYPE @extschema@.env_warm_result AS (cold bigint, warm bigint, failed bigint);

COMMENT ON TYPE @extschema@.env_warm_result IS
    'data keys that env_warm met: cold (unwrapped by it), warm (known before), and how many of the cold ones failed';
