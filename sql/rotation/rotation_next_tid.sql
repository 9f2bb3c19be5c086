CREATE OR REPLACE FUNCTION envelope_internal.rotation_next_tid(row_tid tid) RETURNS tid
    LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(%s,%s)', split_part(trim('()' FROM row_tid::text), ',', 1),
                  split_part(trim('()' FROM row_tid::text), ',', 2)::integer + 1)::tid
$$;

REVOKE ALL ON FUNCTION envelope_internal.rotation_next_tid(tid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.rotation_next_tid(tid) TO envelope_rotate;

COMMENT ON FUNCTION envelope_internal.rotation_next_tid(tid) IS
    'part of env_rotate: the tid behind another one on its page';
