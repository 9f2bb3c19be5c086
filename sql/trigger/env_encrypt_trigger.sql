-- Encrypt in a trigger. The arguments are those of CREATE TRIGGER: a JSON object for each column.
CREATE OR REPLACE FUNCTION @extschema@.env_encrypt_trigger() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_encrypt_trigger';

-- PostgreSQL checks this when the trigger is made, not when it fires.
REVOKE ALL ON FUNCTION @extschema@.env_encrypt_trigger() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.env_encrypt_trigger() TO envelope_encrypt;

COMMENT ON FUNCTION @extschema@.env_encrypt_trigger() IS
    'trigger BEFORE INSERT OR UPDATE FOR EACH ROW that encrypts columns: {"source": ..., "target": ..., "key_id": ...}';
