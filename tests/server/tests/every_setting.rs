//! Whatever a session has set, each operation does the same: all of them under one setting after the other.

use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::local());

/// What a statement of ours could depend on by accident.
const SETTINGS: &[(&str, &str)] = &[
    ("standard_conforming_strings", "off"),
    ("escape_string_warning", "off"),
    ("backslash_quote", "off"),
    ("bytea_output", "escape"),
    ("quote_all_identifiers", "on"),
    ("DateStyle", "SQL, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "Pacific/Auckland"),
    ("extra_float_digits", "-15"),
    ("xmloption", "document"),
    ("xmlbinary", "hex"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("lc_numeric", "C"),
    ("lc_messages", "C"),
    ("search_path", "pg_temp"),
    ("search_path", ""),
    ("row_security", "off"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_deferrable", "on"),
    ("default_toast_compression", "pglz"),
    ("session_replication_role", "replica"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
    ("plan_cache_mode", "force_generic_plan"),
    ("plan_cache_mode", "force_custom_plan"),
    ("enable_tidscan", "off"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_hashagg", "off"),
    ("enable_sort", "off"),
    ("enable_nestloop", "off"),
    ("enable_material", "off"),
    ("enable_indexscan", "off"),
    ("enable_bitmapscan", "off"),
    ("constraint_exclusion", "on"),
    ("enable_partition_pruning", "off"),
    ("max_parallel_workers_per_gather", "4"),
    ("parallel_setup_cost", "0"),
    ("work_mem", "64kB"),
    ("lock_timeout", "5min"),
    ("statement_timeout", "5min"),
    ("idle_in_transaction_session_timeout", "5min"),
    ("from_collapse_limit", "1"),
    ("join_collapse_limit", "1"),
    ("geqo_threshold", "2"),
    ("check_function_bodies", "off"),
    ("default_statistics_target", "1"),
    ("synchronize_seqscans", "off"),
    ("plpgsql.extra_errors", "all"),
    ("plpgsql.extra_warnings", "all"),
    ("plpgsql.print_strict_params", "on"),
    ("client_encoding", "LATIN1"),
];

/// A table with a trigger, a CHECK, an index, a damaged value and a bound column, and all that rotates, adopts and looks at it.
const OPERATIONS: &[&str] = &[
    "CREATE TABLE public.all_of_it (id int PRIMARY KEY, plain text, json jsonb, ssn text, ssn_enc bytea, value bytea, bound bytea)",
    r#"CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON public.all_of_it FOR EACH ROW
       EXECUTE FUNCTION public.env_encrypt_trigger('{"source": "ssn", "target": "ssn_enc", "key_id": "local:dev"}')"#,
    "INSERT INTO public.all_of_it SELECT i, 'te''xt ' || chr(92) || 'x ' || i, jsonb_build_object('a', i), 'ssn ' || i, NULL, NULL,
         public.env_encrypt('b' || i, 'local:dev', '{\"t\": \"b\"}', 'row ' || i) FROM generate_series(1, 60) AS i",
    "UPDATE public.all_of_it SET bound = set_byte(bound, octet_length(bound) - 1, get_byte(bound, octet_length(bound) - 1) # 1) WHERE id = 7",
    "CALL public.env_encrypt_column('public.all_of_it', 'plain', 'value', 'local:dev', '{\"a\": \"b\"}', aad_expression => $$'v' || id$$)",
    "CALL public.env_rotate('public.all_of_it', 'value', 'local:next')",
    "CALL public.env_rotate('public.all_of_it', 'value', 'local:dev', 'reencrypt', aad_expression => $$'v' || id$$, from_key => 'local:next')",
    "CALL public.env_rotate('public.all_of_it', 'bound', 'local:next', 'reencrypt', aad_expression => $$'row ' || id$$, batch_blocks => 1)",
    "UPDATE public.all_of_it SET plain = NULL",
    "CALL public.env_decrypt_column('public.all_of_it', 'value', 'plain', aad_expression => $$'v' || id$$)",
];

const QUESTIONS: &[&str] = &[
    "SELECT count(*)::text FROM public.all_of_it WHERE plain = 'te''xt ' || chr(92) || 'x ' || id AND public.env_decrypt(value, 'v' || id) = plain",
    "SELECT string_agg(concat_ws(' ', column_name, content, key_id, rows, deks), '; ' ORDER BY column_name, content, key_id)
     FROM public.env_inventory('public') WHERE relation = 'public.all_of_it'::regclass",
    "SELECT string_agg(concat_ws(' ', column_name, state, stored_key_id, rows), '; ' ORDER BY column_name, state)
     FROM public.env_key_usage('local:next') WHERE relation = 'public.all_of_it'::regclass",
    "SELECT concat_ws(' ', rows_to_change, data_keys, keys) FROM public.env_rotation_plan('public.all_of_it', 'value', 'local:next')",
    "SELECT string_agg(concat_ws(' ', column_name, method, state, rows_done, failures, not_envelopes), '; ' ORDER BY run_id) FROM public.env_rotation",
    "SELECT string_agg(concat_ws(' ', row_count, sqlstate, message), '; ') FROM public.env_rotation_failure",
    "SELECT concat_ws(' ', cold, warm, failed) FROM public.env_warm('public.all_of_it', 'value')",
    "SELECT string_agg(concat_ws(' ', suite, type, has_aad, encryption_context, wrapped_keys, key_id, value_bytes), '; ' ORDER BY id)
     FROM public.all_of_it, public.env_inspect(value) WHERE id < 4",
    "SELECT public.env_decrypt_jsonb(public.env_encrypt('{\"a\": [1, 2.50]}'::jsonb, 'local:dev'))::text",
    "SELECT encode(public.env_decrypt_bytea(public.env_encrypt(decode('00ff5c', 'hex'), 'local:dev')), 'hex')",
    "SELECT count(*)::text FROM (SELECT * FROM public.env_stat_cache) AS c WHERE ttl_seconds IS NULL",
];

/// Runs everything, as the owner of the table, who is no superuser unless the setting takes one.
fn all_of_it(client: &mut Client) -> Vec<String> {
    let mut said = Vec::new();
    for operation in OPERATIONS {
        if let Err(error) = client.batch_execute(operation) {
            let error = error.as_db_error().expect("the server said so");
            said.push(format!("{} {}", error.code().code(), error.message().replace(char::is_numeric, "")));
        }
    }
    // An inventory says no to any other.
    client.run("BEGIN ISOLATION LEVEL READ COMMITTED");
    for question in QUESTIONS {
        said.push(client.one::<Option<String>>(question, &[]).unwrap_or_default());
    }
    client.run("COMMIT");
    said
}

#[test]
fn all_operations_do_the_same_under_every_setting() {
    let fixture = fixture();
    fixture.connect().run(
        "SELECT env_local_create_key('next'); GRANT CREATE ON SCHEMA public TO PUBLIC;
         CREATE ROLE worker LOGIN IN ROLE envelope_encrypt, envelope_decrypt, envelope_rotate",
    );
    let outcome = |setting: Option<(&str, &str)>| {
        let mut admin = fixture.connect();
        admin.run("DROP TABLE IF EXISTS public.all_of_it; TRUNCATE envelope_internal.rotation_run CASCADE");
        let takes_superuser = |(name, _): (&str, &str)| {
            admin.one::<bool>(
                "SELECT count(*) > 0 FROM pg_settings WHERE lower(name) = lower($1) AND context = 'superuser'",
                &[&name],
            )
        };
        let is_super = setting.is_some_and(takes_superuser);
        let mut client = if is_super { fixture.connect() } else { fixture.cluster.connect("worker", "postgres") };
        if let Some((name, value)) = setting {
            client.one::<String>("SELECT set_config($1, $2, false)", &[&name, &value]);
        }
        all_of_it(&mut client)
    };
    let usual = outcome(None);
    assert!(usual[1].starts_with("60"), "{usual:?}");
    for (name, value) in SETTINGS {
        let here = outcome(Some((name, value)));
        // Triggers are off there, as they are to be.
        if *name == "session_replication_role" {
            assert_eq!(here[..2], usual[..2], "{name} = {value}");
            continue;
        }
        assert_eq!(here, usual, "{name} = {value}");
    }
}

/// Strings in a function's body are read under the settings of whoever calls it first; but for those with an E in front.
#[test]
fn no_body_has_a_backslash() {
    let with_one = fixture().connect().column::<String>(
        "SELECT p.oid::regprocedure::text FROM pg_depend JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND p.oid = objid
         WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
           AND strpos(regexp_replace(prosrc, $$E'([^'\\\\]|\\\\.)*'$$, '', 'g'), chr(92)) > 0",
    );
    assert_eq!(with_one, [""; 0]);
}
