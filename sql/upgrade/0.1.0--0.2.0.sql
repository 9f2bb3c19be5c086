-- What 0.1.0 had in the schema of the extension and nobody calls moves to a schema of its own. What something of the user's can
-- depend on is moved; of the rest, which only env_rotate named in its statements, the new one takes the place.
CREATE SCHEMA envelope_internal;

ALTER FUNCTION @extschema@.env_warm_transition(internal, bytea) SET SCHEMA envelope_internal;
ALTER FUNCTION envelope_internal.env_warm_transition(internal, bytea) RENAME TO warm_transition;
ALTER FUNCTION @extschema@.env_warm_final(internal) SET SCHEMA envelope_internal;
ALTER FUNCTION envelope_internal.env_warm_final(internal) RENAME TO warm_final;
ALTER FUNCTION @extschema@.env_stat_kms_json() SET SCHEMA envelope_internal;
ALTER FUNCTION envelope_internal.env_stat_kms_json() RENAME TO stat_kms_json;
ALTER FUNCTION @extschema@.env_stat_cache_json() SET SCHEMA envelope_internal;
ALTER FUNCTION envelope_internal.env_stat_cache_json() RENAME TO stat_cache_json;
ALTER FUNCTION @extschema@.env_stat_broker_json() SET SCHEMA envelope_internal;
ALTER FUNCTION envelope_internal.env_stat_broker_json() RENAME TO stat_broker_json;

DROP FUNCTION @extschema@.env_rewrap_warm(bytea[], text);
DROP FUNCTION @extschema@.env_reencrypt_warm(bytea[], text);
DROP FUNCTION @extschema@.env_rewrap_target(text);
DROP FUNCTION @extschema@.env_rotation_lock(bigint);
DROP FUNCTION @extschema@.env_rotation_unlock(bigint);
DROP FUNCTION @extschema@.env_rotation_lock_key(oid, smallint);
DROP FUNCTION @extschema@.env_rotation_leaves(oid);
DROP FUNCTION @extschema@.env_rotation_triage(text);
DROP FUNCTION @extschema@.env_rotation_fail(bigint, oid, tid, bytea, bigint, text, text);
DROP FUNCTION @extschema@.env_rotation_begin(jsonb);
DROP FUNCTION @extschema@.env_rotation_moves(oid, name);
DROP FUNCTION @extschema@.env_rotation_type(oid, name);
DROP FUNCTION @extschema@.env_rotation_statements(oid, jsonb);
DROP FUNCTION @extschema@.env_rotation_hold(oid, oid);
DROP FUNCTION @extschema@.env_rotation_give_up(bigint, text, text, text);
DROP FUNCTION @extschema@.env_rotation_next(bigint, jsonb, bigint, integer);
DROP FUNCTION @extschema@.env_rotation_due(bigint, jsonb, integer, oid, bytea[], bigint[], bytea[]);
DROP FUNCTION @extschema@.env_rotation_warm(text, bytea[], text);
DROP FUNCTION @extschema@.env_rotation_record(bigint, jsonb, timestamptz, bigint, bigint, bigint, bigint, bigint, bigint, bytea[],
    bigint, timestamptz);
DROP FUNCTION @extschema@.env_rotation_end(bigint);
DROP FUNCTION @extschema@.env_rotation_next_tid(tid);
DROP FUNCTION @extschema@.env_rotation_verify(bigint);
DROP PROCEDURE @extschema@.env_rotation_loop(bigint, jsonb);

-- Open runs go on where they are.
DO $$
DECLARE
    old_name name;
    part record;
BEGIN
    FOREACH old_name IN ARRAY ARRAY['env_rotation_run', 'env_rotation_dek', 'env_rotation_failure']::name[] LOOP
        EXECUTE format('ALTER TABLE @extschema@.%I SET SCHEMA envelope_internal', old_name);
        EXECUTE format('DROP POLICY seen ON envelope_internal.%I', old_name);
        EXECUTE format('DROP POLICY written ON envelope_internal.%I', old_name);
        FOR part IN SELECT conname FROM pg_constraint WHERE conrelid = format('envelope_internal.%I', old_name)::regclass LOOP
            EXECUTE format('ALTER TABLE envelope_internal.%I RENAME CONSTRAINT %I TO %I',
                           old_name, part.conname, substr(part.conname, 5));
        END LOOP;
        EXECUTE format('ALTER TABLE envelope_internal.%I RENAME TO %I', old_name, substr(old_name, 5));
    END LOOP;
END
$$;
ALTER INDEX envelope_internal.env_rotation_run_open RENAME TO rotation_run_open;
ALTER TABLE envelope_internal.rotation_run ADD COLUMN pass_blocks bigint NOT NULL DEFAULT 0;
ALTER TABLE envelope_internal.rotation_run DROP CONSTRAINT rotation_run_status_check;
ALTER TABLE envelope_internal.rotation_run ADD CONSTRAINT rotation_run_status_check
    CHECK (status IN ('open', 'failed rows', 'done', 'abandoned'));
ALTER TABLE envelope_internal.rotation_run ADD CONSTRAINT rotation_run_lock_key_check CHECK (lock_key =
    pg_catalog.hashtextextended(pg_catalog.format('envelope_pg rotation of %s.%s', relation, column_number), 0));
-- They take more arguments now.
DROP PROCEDURE @extschema@.env_rotate(regclass, name, text, text, name, text, integer, text, numeric, integer, bigint, bytea, text);
DROP PROCEDURE @extschema@.env_encrypt_column(regclass, name, name, text, jsonb, name, text, boolean, integer, text, numeric,
    integer, bigint);
DROP PROCEDURE @extschema@.env_decrypt_column(regclass, name, name, name, text, boolean, integer, text, numeric, integer, bigint);
DROP FUNCTION @extschema@.env_rotation_plan(regclass, name, text, text, text, double precision, numeric, numeric);
ALTER INDEX envelope_internal.env_rotation_failure_run RENAME TO rotation_failure_run;
ALTER SEQUENCE envelope_internal.env_rotation_run_run_id_seq RENAME TO rotation_run_run_id_seq;
ALTER SEQUENCE envelope_internal.env_rotation_failure_failure_id_seq RENAME TO rotation_failure_failure_id_seq;
REVOKE SELECT ON envelope_internal.rotation_failure FROM envelope_admin;

-- A group role that 0.1.0 did not have.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'envelope_search') THEN
        CREATE ROLE envelope_search NOLOGIN;
    END IF;
END
$$;
