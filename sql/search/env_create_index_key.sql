CREATE OR REPLACE FUNCTION envelope_internal.index_key_stub(key_id text, encryption_context jsonb) RETURNS bytea
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_index_key_stub';

-- What an index key says of itself, and KMS authenticates. The id makes each a data key of its own, that no other database or
-- attempt has.
CREATE OR REPLACE FUNCTION envelope_internal.index_key_add(name text, version integer, key_id text, encryption_context jsonb)
    RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO envelope_internal.index_key (name, version, revision, stub)
    VALUES (name, version, 1, envelope_internal.index_key_stub(key_id, encryption_context || jsonb_build_object(
        'purpose', 'envelope_pg index key', 'name', name, 'version', version::text, 'id', gen_random_uuid()::text)));
END
$$;

CREATE OR REPLACE FUNCTION @extschema@.env_create_index_key(name text, key_id text, encryption_context jsonb DEFAULT '{}') RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM envelope_internal.refuse_null(jsonb_build_object(
        'name', env_create_index_key.name, 'key_id', key_id, 'encryption_context', encryption_context));
    IF octet_length(env_create_index_key.name) NOT BETWEEN 1 AND 63
        OR env_create_index_key.name !~ '^[ -~]+$' THEN
        RAISE 'name of an index key must be 1 to 63 characters of ASCII' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF encryption_context ?| ARRAY['purpose', 'name', 'version', 'id'] THEN
        RAISE 'encryption context of an index key has a reserved key' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'purpose, name, version and id are set by env_create_index_key.';
    END IF;
    -- Whoever else makes it at the same time.
    PERFORM pg_advisory_xact_lock(hashtextextended('envelope_pg index key ' || env_create_index_key.name, 0));
    IF EXISTS (SELECT FROM envelope_internal.index_key AS k WHERE k.name = env_create_index_key.name) THEN
        RAISE 'index key "%" exists already', env_create_index_key.name USING ERRCODE = 'duplicate_object',
            HINT = 'env_rotate_index_key(name) gives it a new version.';
    END IF;
    PERFORM envelope_internal.index_key_add(env_create_index_key.name, 1, key_id, encryption_context);
    RETURN 1;
END
$$;

REVOKE ALL ON FUNCTION
    envelope_internal.index_key_stub(text, jsonb),
    envelope_internal.index_key_add(text, integer, text, jsonb),
    @extschema@.env_create_index_key(text, text, jsonb)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    envelope_internal.index_key_stub(text, jsonb),
    envelope_internal.index_key_add(text, integer, text, jsonb),
    @extschema@.env_create_index_key(text, text, jsonb)
    TO envelope_admin;

COMMENT ON FUNCTION envelope_internal.index_key_stub(text, jsonb) IS
    'part of env_create_index_key: a value without data under a new data key';
COMMENT ON FUNCTION envelope_internal.index_key_add(text, integer, text, jsonb) IS
    'part of env_create_index_key and env_rotate_index_key: add a version';
COMMENT ON FUNCTION @extschema@.env_create_index_key(text, text, jsonb) IS
    'make an index key, under a KMS key and an encryption context; returns its version, 1';
