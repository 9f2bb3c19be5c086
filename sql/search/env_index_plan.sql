CREATE OR REPLACE FUNCTION envelope_internal.index_plan(
    distinct_values bigint, rows bigint, bits integer, OUT least_bits integer, OUT most_bits integer, OUT chosen_bits integer,
    OUT tokens double precision, OUT rows_per_token double precision, OUT false_hits double precision
) RETURNS record
    LANGUAGE C IMMUTABLE PARALLEL SAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_index_plan';

CREATE OR REPLACE FUNCTION envelope_internal.index_advice(
    distinct_values bigint, rows bigint, bits integer,
    OUT is_advised boolean, OUT least_bits integer, OUT most_bits integer, OUT chosen_bits integer,
    OUT rows_per_token numeric, OUT false_hits numeric, OUT leaks text
) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    plan record;
BEGIN
    SELECT * INTO plan FROM envelope_internal.index_plan(distinct_values, rows, bits);
    least_bits := plan.least_bits;
    most_bits := plan.most_bits;
    chosen_bits := plan.chosen_bits;
    rows_per_token := round(plan.rows_per_token::numeric, 1);
    false_hits := round(greatest(plan.false_hits, 0)::numeric, 1);
    is_advised := coalesce(chosen_bits BETWEEN least_bits AND most_bits, false);
    leaks := CASE
        WHEN least_bits IS NULL THEN format('Too few: %s values can be told by how often each token occurs. Do not index; filter by decrypting.', distinct_values)
        WHEN chosen_bits > most_bits THEN 'Too many bits: most tokens stand for one value, as a full token does.'
        WHEN chosen_bits < least_bits THEN 'Hides well, but a search reads many rows that it is not for.'
        ELSE format('Which of %s groups of about %s values a row is in, and how many rows each has. A value that is much more frequent than others still shows.',
                    round(plan.tokens), round(distinct_values / plan.tokens)) END;
END
$$;

CREATE OR REPLACE FUNCTION @extschema@.env_index_plan(
    distinct_values bigint, rows bigint, bits integer DEFAULT NULL,
    OUT is_advised boolean, OUT least_bits integer, OUT most_bits integer, OUT chosen_bits integer,
    OUT rows_per_token numeric, OUT false_hits numeric, OUT leaks text
) RETURNS record
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM envelope_internal.index_advice($1, $2, $3)
$$;

-- Of a column in plain text, before it is encrypted. It reads the whole column.
CREATE OR REPLACE FUNCTION @extschema@.env_index_plan(
    relation regclass, column_name name,
    OUT distinct_values bigint, OUT rows bigint, OUT heaviest_share numeric,
    OUT is_advised boolean, OUT least_bits integer, OUT most_bits integer, OUT chosen_bits integer,
    OUT rows_per_token numeric, OUT false_hits numeric, OUT leaks text
) RETURNS record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_encrypted boolean;
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object('relation', relation::oid, 'column_name', column_name));
    IF (SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = column_name) = 'bytea'::regtype THEN
        EXECUTE format('SELECT envelope_internal.is_envelope(%1$I) FROM %2$s WHERE %1$I IS NOT NULL LIMIT 1', column_name, relation)
        INTO is_encrypted;
        IF is_encrypted THEN
            RAISE 'column "%" is encrypted: each value in it is different', column_name USING ERRCODE = 'wrong_object_type',
                HINT = 'Count what it decrypts to: env_index_plan(count(DISTINCT env_decrypt(column)), count(column)).';
        END IF;
    END IF;
    EXECUTE format('SELECT count(*), coalesce(sum(n), 0), round(max(n) / nullif(sum(n), 0), 4)
                    FROM (SELECT count(*) AS n FROM %s WHERE %I IS NOT NULL GROUP BY %I) AS grouped', relation, column_name, column_name)
    INTO distinct_values, rows, heaviest_share;
    SELECT p.is_advised, p.least_bits, p.most_bits, p.chosen_bits, p.rows_per_token, p.false_hits,
           p.leaks || CASE WHEN heaviest_share > 0.05 AND p.least_bits IS NOT NULL
                           THEN format(' The most frequent value is in %s %% of the rows: its token shows.', round(heaviest_share * 100, 1)) ELSE '' END
    INTO is_advised, least_bits, most_bits, chosen_bits, rows_per_token, false_hits, leaks
    FROM envelope_internal.index_advice(distinct_values, rows, NULL::integer) AS p;
END
$$;

COMMENT ON FUNCTION envelope_internal.index_plan(bigint, bigint, integer) IS
    'part of env_index_plan: the rule of AWS beacons';
COMMENT ON FUNCTION envelope_internal.index_advice(bigint, bigint, integer) IS
    'env_index_plan, for the extension itself';
COMMENT ON FUNCTION @extschema@.env_index_plan(bigint, bigint, integer) IS
    'how many bits a token should have, what a search costs, and what the tokens show';
COMMENT ON FUNCTION @extschema@.env_index_plan(regclass, name) IS
    'env_index_plan of a column in plain text, with the share of its most frequent value';
