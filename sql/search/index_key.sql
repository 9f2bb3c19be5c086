-- The index keys: for each version a value without data, whose data key is the index key. Not secret, as it is wrapped. A row is
-- never changed: what happens to a version is a new row, of which the last one counts. Dumped: without the table nobody can
-- search (the data can be read, and indexed anew).
CREATE TABLE IF NOT EXISTS envelope_internal.index_key (
    name        text COLLATE "C" NOT NULL CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 63 AND name ~ '^[ -~]+$'),
    version     integer NOT NULL CHECK (version > 0),
    revision    integer NOT NULL CHECK (revision > 0),
    stub        bytea NOT NULL,
    is_retired  boolean NOT NULL DEFAULT false,
    recorded    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    recorded_by name NOT NULL DEFAULT CURRENT_USER,
    PRIMARY KEY (name, version, revision)
);

SELECT pg_catalog.pg_extension_config_dump('envelope_internal.index_key', '');

CREATE OR REPLACE FUNCTION envelope_internal.index_key_append() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE 'index keys are never changed or removed'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'env_rotate_index_key makes a new version, env_retire_index_key ends the use of one, env_rewrap_index_keys moves them to another KMS key.';
END
$$;

-- What a row says must be what the data key says of itself, or tokens would fail. And who may bring index keys under another KMS
-- key may not put one in that he knows: only who may make index keys adds a version or retires one, and a version stays the same data key.
CREATE OR REPLACE FUNCTION envelope_internal.index_key_check() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    context jsonb;
BEGIN
    IF (NEW.revision = 1 OR NEW.is_retired IS DISTINCT FROM (SELECT k.is_retired FROM envelope_internal.index_key AS k
            WHERE k.name = NEW.name AND k.version = NEW.version ORDER BY k.revision DESC LIMIT 1))
        AND NOT pg_has_role('envelope_admin', 'USAGE')
        AND NOT pg_has_role((SELECT c.relowner FROM pg_class AS c WHERE c.oid = TG_RELID), 'USAGE') THEN
        RAISE 'permission denied to add or retire a version of an index key' USING ERRCODE = 'insufficient_privilege',
            HINT = 'Grant envelope_admin.';
    END IF;
    IF envelope_internal.is_envelope(NEW.stub) THEN
        context := envelope_internal.encryption_context(NEW.stub);
    END IF;
    IF (context ->> 'purpose' = 'envelope_pg index key' AND context ->> 'name' = NEW.name
        AND context ->> 'version' = NEW.version::text) IS NOT TRUE THEN
        RAISE 'not an index key of that name and version'
            USING ERRCODE = 'check_violation', HINT = 'env_create_index_key and env_rotate_index_key make index keys.';
    END IF;
    -- Whichever of them a restore brings first.
    IF EXISTS (SELECT FROM envelope_internal.index_key AS k WHERE k.name = NEW.name AND k.version = NEW.version
               AND envelope_internal.dek_id(k.stub) <> envelope_internal.dek_id(NEW.stub)) THEN
        RAISE 'another data key than that of the version' USING ERRCODE = 'check_violation',
            HINT = 'env_rotate_index_key makes a new version.';
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION envelope_internal.index_key_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'env_index_key_changed';

CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON envelope_internal.index_key
    FOR EACH STATEMENT EXECUTE FUNCTION envelope_internal.index_key_append();
CREATE OR REPLACE TRIGGER checked BEFORE INSERT ON envelope_internal.index_key
    FOR EACH ROW EXECUTE FUNCTION envelope_internal.index_key_check();
-- Sessions that know the table read it again. Also where rows come by replication or a restore.
CREATE OR REPLACE TRIGGER changed AFTER INSERT ON envelope_internal.index_key
    FOR EACH ROW EXECUTE FUNCTION envelope_internal.index_key_changed();
ALTER TABLE envelope_internal.index_key ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE envelope_internal.index_key ENABLE ALWAYS TRIGGER checked;
ALTER TABLE envelope_internal.index_key ENABLE ALWAYS TRIGGER changed;

REVOKE ALL ON FUNCTION envelope_internal.index_key_append(), envelope_internal.index_key_check(), envelope_internal.index_key_changed()
    FROM PUBLIC;
GRANT SELECT, INSERT ON envelope_internal.index_key TO envelope_admin, envelope_rotate;

COMMENT ON TABLE envelope_internal.index_key IS
    'the index keys, wrapped; see the view env_index_key';
COMMENT ON FUNCTION envelope_internal.index_key_append() IS
    'part of the table of index keys: rows stay as they are';
COMMENT ON FUNCTION envelope_internal.index_key_check() IS
    'part of the table of index keys: a row says what its data key says';
COMMENT ON FUNCTION envelope_internal.index_key_changed() IS
    'part of the table of index keys: tells sessions of new rows';
