-- The rules of all triggers of env_encrypt_trigger, those of partitions left out. A trigger's argument is what its table's owner
-- wrote, so it may be anything: then the rule is null.
CREATE OR REPLACE FUNCTION envelope_internal.check_rules()
    RETURNS TABLE (relation oid, name name, enabled "char", rule jsonb)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    t record;
    argument text;
BEGIN
    FOR t IN
        SELECT tgrelid, tgname, tgenabled, tgargs FROM pg_trigger
        WHERE tgfoid = '@extschema@.env_encrypt_trigger()'::regprocedure AND NOT tgisinternal AND tgparentid = 0
    LOOP
        -- A zero byte is behind each argument: in hex with a space behind each byte.
        FOREACH argument IN ARRAY string_to_array(regexp_replace(encode(t.tgargs, 'hex'), '..', E'\\& ', 'g'), '00 ') LOOP
            CONTINUE WHEN argument = '';
            relation := t.tgrelid;
            name := t.tgname;
            enabled := t.tgenabled;
            BEGIN
                rule := CAST(convert_from(decode(argument, 'hex'), getdatabaseencoding()) AS jsonb);
            EXCEPTION
                WHEN data_exception THEN
                    rule := NULL;
            END;
            IF jsonb_typeof(rule) <> 'object' THEN
                rule := NULL;
            END IF;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_rules() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_rules()
    TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search, pg_monitor;

COMMENT ON FUNCTION envelope_internal.check_rules() IS
    'part of env_check: what the encrypting triggers of this database are told';
