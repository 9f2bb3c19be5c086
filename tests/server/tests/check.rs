//! `env_check`: each finding is made, seen, mended by the statement that it comes with, and gone. What no SQL can mend (a
//! credential, a file, a key in AWS) is mended by hand, and its statement is a comment.

use serde_json::json;
use testkit::{Client, Cluster, Emulator, Fault, Fixture, Rule, Session};

testkit::shared_fixture!(well_kept());

/// A server that is set up as the documentation says.
fn well_kept() -> Fixture {
    let fixture = Fixture::with_broker_and(
        Cluster::builder()
            .setting("shared_preload_libraries", "envelope_pg")
            .setting("log_min_error_statement", "panic")
            .setting("track_activities", "off"),
    );
    fixture.cluster.set("envelope_pg.allowed_keys", &fixture.key_id);
    fixture
}

/// A finding: severity, area, name, object, detail, statement.
#[derive(Clone, Debug)]
struct Finding {
    severity: String,
    object: String,
    detail: String,
    mend: String,
}

fn findings_of(client: &mut Client, name: &str, arguments: &str) -> Vec<Finding> {
    let query = format!("SELECT severity, object, detail, mend FROM env_check({arguments}) WHERE finding = $1");
    let rows = client.query(&query, &[&name]).unwrap_or_else(|error| panic!("env_check: {error:?}"));
    let finding = |row: &postgres::Row| Finding {
        severity: row.get(0),
        object: row.get(1),
        detail: row.get(2),
        mend: row.get(3),
    };
    rows.iter().map(finding).collect()
}

/// The one finding of a name in a new session.
#[track_caller]
fn found(fixture: &Fixture, name: &str, severity: &str) -> Finding {
    let findings = findings_of(&mut fixture.connect(), name, "");
    let [finding] = &findings[..] else { panic!("{name}: {findings:?}") };
    assert_eq!(finding.severity, severity, "{finding:?}");
    finding.clone()
}

#[track_caller]
fn assert_gone(fixture: &Fixture, name: &str) {
    testkit::wait_until(&format!("{name} is gone"), || findings_of(&mut fixture.connect(), name, "").is_empty());
}

/// Runs the statements of a finding as psql would, one after the other, and sees the finding gone.
#[track_caller]
fn mend(fixture: &Fixture, name: &str, severity: &str) -> Finding {
    let finding = found(fixture, name, severity);
    run_mend(fixture, &finding);
    assert_gone(fixture, name);
    finding
}

#[track_caller]
fn run_mend(fixture: &Fixture, finding: &Finding) {
    assert!(!finding.mend.starts_with("--"), "{finding:?}");
    let needs_restart = finding.mend.contains("restart");
    // psql sends one statement at a time; ALTER SYSTEM takes no other beside it.
    let path = fixture.cluster.directory().join("mend.sql");
    std::fs::write(&path, &finding.mend).expect("the directory can be written");
    fixture.cluster.run("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", &path.display().to_string()]);
    if needs_restart {
        fixture.cluster.restart();
    }
}

#[test]
fn a_server_that_is_well_set_up_has_no_error_and_no_warning() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("CREATE TABLE IF NOT EXISTS kept (id int, value bytea CHECK (env_is_envelope(value)))");
    client
        .execute("INSERT INTO kept VALUES (1, env_encrypt('a text', $1))", &[&fixture.key_id])
        .expect("it is written");
    let rows = client.query("SELECT * FROM env_check() WHERE severity <> 'notice'", &[]).expect("it answers");
    assert!(rows.is_empty(), "{rows:?}");
    let notices = client.column::<String>("SELECT finding FROM env_check() ORDER BY 1");
    assert_eq!(notices, ["endpoint_http", "static_credentials"], "of the emulator");
    let probe = "SELECT count(*) FROM env_check() WHERE severity = 'error'";
    assert_eq!(client.one::<i64>(probe, &[]), 0);
    // Read-only, and also as somebody who watches.
    client.run("BEGIN READ ONLY");
    assert_eq!(client.one::<i64>(probe, &[]), 0);
    client.run("COMMIT");
    let mut watcher = fixture.connect_as("watcher", &["pg_monitor"]);
    assert_eq!(watcher.one::<i64>(probe, &[]), 0);
    assert_eq!(watcher.column::<String>("SELECT object FROM env_check() WHERE finding = 'not_examined'").len(), 1);
    watcher.fail("SELECT * FROM env_check(keys => true)", &[]).with("42501");
    fixture.connect_as("nobody_special", &[]).fail("SELECT * FROM env_check()", &[]).with("42501");
    client.fail("SELECT * FROM env_check(rows => -1)", &[]).with("22023");
    client.run("DROP TABLE kept");
}

#[test]
fn settings_that_write_plaintext_to_the_log() {
    let fixture = fixture();
    for (setting, value) in [
        ("log_statement", "all"),
        ("log_statement", "mod"),
        ("log_min_duration_statement", "0"),
        ("log_min_duration_sample", "10s"),
        ("log_transaction_sample_rate", "0.5"),
        ("log_parameter_max_length_on_error", "-1"),
        ("debug_print_parse", "on"),
        ("debug_print_rewritten", "on"),
        ("debug_print_plan", "on"),
    ] {
        assert_gone(&fixture, setting);
        fixture.cluster.set(setting, value);
        let finding = mend(&fixture, setting, "error");
        assert!(finding.object == "server" && finding.detail.starts_with(setting), "{finding:?}");
        fixture.cluster.reset(setting);
    }
    for (setting, value) in [("log_min_error_statement", "error"), ("track_activities", "on")] {
        fixture.cluster.set(setting, value);
        mend(&fixture, setting, "notice");
        fixture.cluster.reset(setting);
    }
}

#[test]
fn settings_of_roles_and_databases() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE ROLE logged");
    for scope in ["ROLE logged", "DATABASE postgres", "ROLE logged IN DATABASE postgres"] {
        fixture.cluster.sql(&format!("ALTER {scope} SET log_statement = 'all'"));
        let finding = mend(&fixture, "log_statement", "error");
        assert!(finding.mend.starts_with(&format!("ALTER {scope} RESET")), "{finding:?}");
    }
    fixture.cluster.sql("ALTER ROLE logged SET debug_print_plan = 'true'");
    mend(&fixture, "debug_print_plan", "error");
    // What a session has set for itself is its own matter.
    let mut client = fixture.connect();
    client.run("SET log_statement = 'all'");
    assert!(findings_of(&mut client, "log_statement", "").is_empty());
}

/// Where these libraries are not installed, their settings can be set all the same.
#[test]
fn extensions_that_write_statements() {
    let fixture = fixture();
    for (setting, value, severity) in [
        ("auto_explain.log_min_duration", "100ms", "error"),
        ("pg_stat_statements.track_utility", "on", "warning"),
        ("pgaudit.log", "write", "warning"),
    ] {
        fixture.cluster.sql(&format!("ALTER DATABASE postgres SET {setting} = '{value}'"));
        mend(&fixture, setting, severity);
    }
}

#[test]
fn settings_of_the_extension() {
    let fixture = fixture();
    let allowed = fixture.key_id.clone();
    for (name, setting, value, severity) in [
        ("any_key", "envelope_pg.allowed_keys", "", "warning"),
        ("local_keyring", "envelope_pg.local_keyring", "keys.json", "warning"),
        ("double_encryption", "envelope_pg.allow_double_encryption", "on", "warning"),
        ("data_key_age", "envelope_pg.dek_max_age", "60d", "warning"),
        ("revocation_time", "envelope_pg.cache_ttl", "2d", "warning"),
        ("broker_off", "envelope_pg.broker", "off", "notice"),
    ] {
        fixture.cluster.set(setting, value);
        mend(&fixture, name, severity);
        fixture.cluster.reset(setting);
    }
    fixture.cluster.reset("envelope_pg.require_named_keys");
    fixture.cluster.set("envelope_pg.allowed_keys", &allowed);
    fixture.cluster.sql("ALTER ROLE postgres SET envelope_pg.cache_ttl = '3d'");
    mend(&fixture, "revocation_time", "warning");
}

#[test]
fn keys_in_use_are_proposed_as_the_allowed_ones() {
    let fixture = fixture();
    let key = fixture.new_key().arn;
    fixture.cluster.reset("envelope_pg.allowed_keys");
    let mut client = fixture.connect();
    client.run("CREATE TABLE proposed (value bytea)");
    client.execute("INSERT INTO proposed VALUES (env_encrypt('a text', $1))", &[&key]).expect("it is written");
    let finding = mend(&fixture, "any_key", "warning");
    assert!(finding.mend.contains(&key), "{finding:?}");
    fixture.connect().one::<String>("SELECT env_decrypt(value) FROM proposed", &[]);
    client.run("DROP TABLE proposed");
    fixture.cluster.set("envelope_pg.allowed_keys", &fixture.key_id.clone());
}

#[test]
fn an_endpoint_without_tls_or_without_a_scheme() {
    let fixture = Fixture::kms();
    let url = fixture.proxy.url();
    assert_eq!(found(&fixture, "endpoint_http", "notice").object, "envelope_pg.kms_endpoint_url");
    fixture.cluster.set("envelope_pg.kms_endpoint_url", "http://kms.example.net:4566");
    mend(&fixture, "endpoint_http", "error");
    fixture.cluster.set("envelope_pg.kms_endpoint_url", &url);
}

#[test]
fn what_a_server_lacks() {
    let fixture = Fixture::kms_with(
        Cluster::builder()
            .without_environment("AWS_ACCESS_KEY_ID")
            .environment("HOME", "/nowhere")
            .setting("max_logical_replication_workers", "0")
            .setting("max_worker_processes", "0"),
    );
    fixture.cluster.set("envelope_pg.broker", "on");
    fixture.cluster.set("envelope_pg.kms_region", "");
    assert!(found(&fixture, "credentials", "error").mend.starts_with("--"));
    mend(&fixture, "region", "warning");
    mend(&fixture, "not_preloaded", "warning");
    mend(&fixture, "worker_processes", "warning");
}

#[test]
fn a_file_of_counters_that_cannot_be_used() {
    let fixture = Fixture::kms();
    let path = fixture.cluster.data_directory().join("pg_stat_tmp/envelope_pg.1.shared");
    fixture.connect().encrypt("a text", &fixture.key_id);
    std::fs::remove_file(&path).expect("it is there");
    std::fs::create_dir(&path).expect("a directory can take its place");
    found(&fixture, "shared_counters", "error");
    std::fs::remove_dir(&path).expect("it is empty");
    assert_gone(&fixture, "shared_counters");
}

#[test]
fn a_broker_that_does_not_answer() {
    let fixture = fixture();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let stopped = testkit::Stopped::stop(fixture.cluster.broker());
    found(&fixture, "broker_hung", "error");
    drop(stopped);
    assert_gone(&fixture, "broker_hung");
}

#[test]
fn plaintext_that_postgresql_keeps() {
    let fixture = fixture();
    let key = &fixture.key_id;
    fixture.cluster.sql(&format!(
        "CREATE TABLE \"Person\" (id int PRIMARY KEY, \"Name\" text, value bytea CHECK (env_is_envelope(value)), CHECK (\"Name\" IS NULL) NOT VALID);
         ALTER TABLE \"Person\" DROP CONSTRAINT \"Person_Name_check\";
         INSERT INTO \"Person\" SELECT i, 'name ' || i % 10 FROM generate_series(1, 1000) AS i;
         ANALYZE \"Person\";
         CREATE TRIGGER seal BEFORE INSERT OR UPDATE ON \"Person\" FOR EACH ROW EXECUTE FUNCTION
             env_encrypt_trigger('{{\"source\": \"Name\", \"target\": \"value\", \"key_id\": \"{key}\"}}');
         UPDATE \"Person\" SET id = id"
    ));
    mend(&fixture, "statistics_of_plaintext", "warning");
    fixture.cluster.sql("CREATE STATISTICS s (mcv) ON \"Name\", id FROM \"Person\"");
    mend(&fixture, "extended_statistics", "warning");
    fixture.cluster.sql("CREATE STATISTICS \"S\" ON (env_decrypt(value)) FROM \"Person\"");
    mend(&fixture, "extended_statistics", "error");
    fixture.cluster.sql("CREATE MATERIALIZED VIEW opened AS SELECT id, env_decrypt(value) FROM \"Person\"");
    mend(&fixture, "materialized_view", "warning");
    fixture.cluster.sql("DROP TABLE \"Person\"");
}

#[test]
fn who_may_do_more_than_was_meant() {
    let fixture = fixture();
    fixture.cluster.sql("CREATE ROLE \"Too Much\"");
    for (name, severity, made) in [
        ("schema_writable", "error", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
        ("schema_writable", "warning", "GRANT CREATE ON SCHEMA public TO \"Too Much\""),
        ("schema_writable", "warning", "ALTER SCHEMA public OWNER TO \"Too Much\""),
        ("schema_writable", "warning", "GRANT CREATE ON SCHEMA envelope_internal TO \"Too Much\""),
        ("group_attributes", "error", "ALTER ROLE envelope_decrypt LOGIN CREATEDB"),
        ("group_membership", "warning", "GRANT \"Too Much\" TO envelope_decrypt"),
        ("group_admin", "warning", "GRANT envelope_decrypt TO \"Too Much\" WITH ADMIN OPTION"),
        ("group_member", "warning", "GRANT envelope_decrypt TO pg_read_all_data"),
        ("public_execute", "error", "GRANT EXECUTE ON FUNCTION env_decrypt(bytea) TO PUBLIC"),
        ("public_execute", "error", "GRANT EXECUTE ON PROCEDURE env_rotate TO PUBLIC"),
        (
            "named_key_public",
            "warning",
            "CREATE SERVER \"A Key\" FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id 'local:dev');
             GRANT USAGE ON FOREIGN SERVER \"A Key\" TO PUBLIC",
        ),
        ("named_key_makers", "warning", "GRANT USAGE ON FOREIGN DATA WRAPPER envelope_pg TO \"Too Much\""),
    ] {
        assert_gone(&fixture, name);
        fixture.cluster.sql(made);
        mend(&fixture, name, severity);
    }
    fixture.cluster.sql("DROP SERVER \"A Key\"");
    // Who was let in by somebody with the ADMIN OPTION; the statement names him.
    fixture.cluster.sql(
        "CREATE ROLE \"Let In\"; GRANT envelope_encrypt TO \"Too Much\" WITH ADMIN OPTION;
         SET ROLE \"Too Much\"; GRANT envelope_encrypt TO \"Let In\"",
    );
    let finding = mend(&fixture, "group_member", "warning");
    assert!(finding.detail.contains("\"Let In\"") && finding.detail.contains("\"Too Much\""), "{finding:?}");
    mend(&fixture, "group_admin", "warning");
}

#[test]
fn columns_with_something_else_in_them() {
    let fixture = fixture();
    let key = &fixture.key_id;
    fixture.cluster.sql(&format!(
        "CREATE TABLE \"Mixed\" (id int, \"Value\" bytea);
         INSERT INTO \"Mixed\" VALUES (1, env_encrypt('a text', '{key}')), (2, 'a text')"
    ));
    mend(&fixture, "mixed_column", "error");
    fixture.cluster.sql("CHECKPOINT");
    let mut client = fixture.connect();
    assert_eq!(client.column::<String>("SELECT env_decrypt(\"Value\") FROM \"Mixed\""), ["a text", "a text"]);
    mend(&fixture, "check_missing", "warning");
    client.fail("INSERT INTO \"Mixed\" VALUES (3, 'a text')", &[]).with("23514");
    client.run(&format!(
        "ALTER TABLE \"Mixed\" DROP CONSTRAINT \"Mixed_Value_check\"; UPDATE \"Mixed\" SET \"Value\" = env_encrypt('\\x00'::bytea, '{key}');
         INSERT INTO \"Mixed\" VALUES (2, 'a text')"
    ));
    mend(&fixture, "mixed_column", "error");
    client.run("DROP TABLE \"Mixed\"");
}

#[test]
fn indexes_and_constraints_that_compare_ciphertexts() {
    let fixture = fixture();
    let key = &fixture.key_id;
    fixture.cluster.sql(&format!(
        "CREATE TABLE compared (id int, value bytea CHECK (env_is_envelope(value)));
         INSERT INTO compared VALUES (1, env_encrypt('a text', '{key}'))"
    ));
    for (severity, made) in [
        ("warning", "CREATE INDEX \"By Value\" ON compared (id, value)"),
        ("error", "CREATE UNIQUE INDEX by_value ON compared (value)"),
        ("error", "ALTER TABLE compared ADD CONSTRAINT \"One\" UNIQUE (value)"),
        ("error", "ALTER TABLE compared ADD EXCLUDE (value WITH =)"),
        (
            "error",
            "CREATE TABLE other (value bytea UNIQUE); ALTER TABLE compared ADD FOREIGN KEY (value) REFERENCES other (value) NOT VALID",
        ),
    ] {
        fixture.cluster.sql(made);
        mend(&fixture, "useless_index", severity);
    }
    // These are of use.
    fixture.cluster.sql("CREATE INDEX ON compared (env_key_id(value)); CREATE INDEX ON compared (id) INCLUDE (value)");
    assert_gone(&fixture, "useless_index");
    fixture.cluster.sql("DROP TABLE compared, other");
}

#[test]
fn triggers_that_do_not_do_their_work() {
    let fixture = fixture();
    let key = &fixture.key_id;
    fixture.cluster.sql(&format!(
        "CREATE TABLE triggered (id int, name text, value bytea CHECK (env_is_envelope(value)));
         CREATE TRIGGER \"Seal\" BEFORE INSERT OR UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION
             env_encrypt_trigger('{{\"source\": \"name\", \"target\": \"value\", \"key_id\": \"{key}\", \"aad\": \"row {{id}}\"}}')"
    ));
    for made in ["DISABLE TRIGGER \"Seal\"", "ENABLE REPLICA TRIGGER \"Seal\"", "DISABLE TRIGGER ALL"] {
        fixture.cluster.sql(&format!("ALTER TABLE triggered {made}"));
        mend(&fixture, "trigger_disabled", "error");
    }
    for made in [
        "ALTER TABLE triggered ADD UNIQUE (name)",
        "CREATE INDEX by_name ON triggered (id, name)",
        "ALTER TABLE triggered ALTER name SET NOT NULL",
    ] {
        fixture.cluster.sql(made);
        mend(&fixture, "constrained_source", "error");
    }
    // A value without an aad beside one with.
    let mut client = fixture.connect();
    client.run(&format!(
        "INSERT INTO triggered VALUES (1, 'with'); ALTER TABLE triggered DISABLE TRIGGER \"Seal\";
         INSERT INTO triggered VALUES (2, NULL, env_encrypt('without', '{key}')); ALTER TABLE triggered ENABLE TRIGGER \"Seal\""
    ));
    mend(&fixture, "aad_missing", "warning");
    assert_eq!(
        client.column::<String>("SELECT env_decrypt(value, 'row ' || id) FROM triggered ORDER BY id"),
        ["with", "without"]
    );
    client.run("ALTER TABLE triggered DROP CONSTRAINT triggered_value_check");
    mend(&fixture, "check_missing", "notice");
    client.run(
        "DROP TABLE triggered; CREATE TABLE triggered (name text);
         CREATE TRIGGER seal BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION env_encrypt_trigger('no JSON')",
    );
    mend(&fixture, "trigger_rule", "error");
    client.run("DROP TABLE triggered");
}

/// However many tables have triggers, all triggers are read as often: not once a table.
#[test]
fn triggers_are_read_once_however_many_tables_have_some() {
    let fixture = fixture();
    let reads = |tables: usize| {
        let mut client = fixture.connect();
        client.run(&format!(
            "CREATE TABLE many_{tables} (name text, value bytea);
             CREATE TRIGGER seal BEFORE INSERT OR UPDATE ON many_{tables} FOR EACH ROW EXECUTE FUNCTION
             env_encrypt_trigger('{{\"source\": \"name\", \"target\": \"value\", \"key_id\": \"local:dev\"}}')"
        ));
        client.run("SET track_functions = 'pl'; BEGIN; SELECT count(*) FROM env_check()");
        let calls = "SELECT pg_stat_get_xact_function_calls('envelope_internal.check_rules()'::regprocedure)";
        let calls: i64 = client.one(calls, &[]);
        client.run("COMMIT");
        calls
    };
    let of_one = reads(1);
    assert!(of_one > 0, "else this could not fail");
    assert_eq!((reads(2), reads(3)), (of_one, of_one));
    fixture.cluster.sql("DROP TABLE many_1, many_2, many_3");
}

#[test]
fn a_data_key_that_is_wrapped_again_and_again() {
    let fixture = fixture();
    let (key, other) = (&fixture.key_id, fixture.new_key().arn);
    let mut client = fixture.connect();
    client.run("SET envelope_pg.allowed_keys = ''");
    client.run(&format!(
        "CREATE TABLE wrapped (value bytea CHECK (env_is_envelope(value)));
         INSERT INTO wrapped SELECT env_encrypt(i::text, '{key}') FROM generate_series(1, 20) AS i"
    ));
    for _ in 0..20 {
        client.run(&format!(
            "UPDATE wrapped SET value = env_rewrap(value, '{other}') WHERE ctid = (SELECT min(ctid) FROM wrapped)"
        ));
        client.run("SELECT env_cache_flush()");
    }
    mend(&fixture, "many_wrappings", "warning");
    assert_eq!(client.one::<i64>("SELECT count(DISTINCT env_decrypt(value)) FROM wrapped", &[]), 20);
    client.run("DROP TABLE wrapped");
}

#[test]
fn index_keys_without_a_backup_and_rotations_that_rest() {
    let fixture = Fixture::kms();
    let key = fixture.key_id.clone();
    fixture.cluster.sql(&format!("SELECT env_create_index_key('person.name', '{key}')"));
    mend(&fixture, "index_key_backup", "warning");
    let other = fixture.new_key().arn;
    let mut client = fixture.connect();
    client.run(&format!(
        "CREATE TABLE resting (value bytea); INSERT INTO resting VALUES (env_encrypt('a text', '{key}'));
         ALTER TABLE resting ADD CHECK (env_key_id(value) <> '{other}')"
    ));
    let failed = client.batch_execute(&format!("CALL env_rotate('resting', 'value', '{other}')"));
    assert!(failed.is_err());
    mend(&fixture, "failed_rows", "warning");
    client.run(
        "INSERT INTO envelope_internal.rotation_run (relation, column_number, relation_name, column_name, method, parameters, lock_key, pass, rows_done, updated)
         VALUES ('resting'::regclass, 1, 'resting', 'value', 'rewrap', '{}', envelope_internal.rotation_lock_key('resting'::regclass, 1::smallint), 1, 1, now() - interval '2 days')",
    );
    mend(&fixture, "open_run", "notice");
}

#[test]
fn keys_are_described_when_asked_for() {
    let fixture = fixture();
    let disabled = fixture.new_key();
    let missing = disabled.arn.replace(&disabled.id, "00000000-5825-4245-a755-138a6d9a11e6");
    fixture.cluster.sql(&format!(
        "CREATE SERVER disabled FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{}');
         CREATE SERVER missing FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{missing}')",
        disabled.arn
    ));
    fixture.proxy.reset_counts();
    found_with_keys(&fixture, "key_rotation", "warning", &disabled.arn);
    let asked = |key_id: &str| fixture.proxy.calls_for(key_id, "DescribeKey");
    assert_eq!((asked(&disabled.arn), asked(&missing)), (1, 1));
    found_with_keys(&fixture, "key_unreachable", "error", &missing);
    Emulator::shared().disable_key(&disabled);
    assert!(found_with_keys(&fixture, "key_state", "error", &disabled.arn).detail.contains("Disabled"));
    fixture.proxy.reset_counts();
    assert!(findings_of(&mut fixture.connect(), "key_state", "").is_empty(), "only when asked");
    assert_eq!(fixture.proxy.total_calls(), 0);
    fixture.cluster.sql("DROP SERVER disabled, missing");
}

/// Nothing uses them yet.
#[test]
fn keys_that_are_only_allowed_are_described() {
    let fixture = fixture();
    let (allowed, of_role) = (fixture.new_key(), fixture.new_key());
    let list = format!("{}, {},alias/of-nothing", fixture.key_id, allowed.arn);
    fixture.cluster.set("envelope_pg.allowed_keys", &list);
    fixture.cluster.sql(&format!(
        "CREATE ROLE limited; ALTER ROLE limited SET envelope_pg.allowed_keys = '{}, {}'",
        of_role.arn, allowed.arn
    ));
    fixture.proxy.reset_counts();
    for key in [&allowed, &of_role] {
        found_with_keys(&fixture, "key_rotation", "warning", &key.arn);
    }
    assert_eq!(fixture.proxy.calls_for(&allowed.arn, "DescribeKey"), 2, "once a check, though two lists have it");
    found_with_keys(&fixture, "key_unreachable", "error", "alias/of-nothing");
    Emulator::shared().disable_key(&allowed);
    assert!(found_with_keys(&fixture, "key_state", "error", &allowed.arn).detail.contains("Disabled"));
    let proposed = fixture.connect().column::<String>("SELECT mend FROM env_check() WHERE finding = 'any_key'");
    assert!(proposed.is_empty(), "{proposed:?}");
    fixture.cluster.sql("ALTER ROLE limited SET envelope_pg.allowed_keys = 'none'");
    assert!(
        findings_of(&mut fixture.connect(), "key_rotation", "keys => true").iter().all(|key| key.object != of_role.arn)
    );
    fixture.cluster.sql("DROP ROLE limited");
    fixture.cluster.set("envelope_pg.allowed_keys", &fixture.key_id);
}

#[test]
fn a_key_that_wraps_no_data_keys_or_is_not_shown() {
    let fixture = well_kept();
    let signing = Emulator::shared()
        .call("CreateKey", &json!({ "KeyUsage": "SIGN_VERIFY", "KeySpec": "RSA_2048" }))
        .expect("the emulator makes it");
    let signing = signing["KeyMetadata"]["Arn"].as_str().expect("a key has it").to_owned();
    fixture
        .cluster
        .sql(&format!("CREATE SERVER signing FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{signing}')"));
    found_with_keys(&fixture, "key_usage", "error", &signing);
    let denied = Fault::kms_error(400, "AccessDeniedException");
    fixture.proxy.set(Rule::every(denied).only("DescribeKey").for_key(&signing));
    found_with_keys(&fixture, "key_not_described", "notice", &signing);
    fixture.proxy.clear();
    assert!(findings_of(&mut fixture.connect(), "key_not_described", "keys => true").is_empty());
    fixture.cluster.sql("DROP SERVER signing");
    let findings = findings_of(&mut fixture.connect(), "key_usage", "keys => true");
    assert!(findings.is_empty(), "{findings:?}");
}

/// KMS refuses requests by a clock that is wrong by five minutes.
#[test]
fn a_clock_that_is_not_that_of_kms() {
    let fixture = well_kept();
    fixture
        .cluster
        .sql(&format!("CREATE SERVER used FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{}')", fixture.key_id));
    let wrong = |fixture: &Fixture| findings_of(&mut fixture.connect(), "clock", "keys => true");
    for (date, says) in [
        ("Thu, 01 Jan 2026 00:00:00 GMT", "ahead of that of KMS"),
        ("Fri, 01 Jan 2100 00:00:00 GMT", "behind that of KMS"),
    ] {
        fixture.proxy.set(Rule::every(Fault::Date(date)).only("DescribeKey"));
        let findings = wrong(&fixture);
        let [finding] = &findings[..] else { panic!("{date}: {findings:?}") };
        assert_eq!(finding.severity, "warning");
        assert!(finding.detail.contains(says), "{finding:?}");
        fixture.proxy.clear();
        assert!(wrong(&fixture).is_empty());
    }
}

#[track_caller]
fn found_with_keys(fixture: &Fixture, name: &str, severity: &str, key_id: &str) -> Finding {
    let mut findings = findings_of(&mut fixture.connect(), name, "keys => true");
    findings.retain(|finding| finding.object == key_id);
    let [finding] = &findings[..] else { panic!("{name}: {findings:?}") };
    assert_eq!(finding.severity, severity, "{finding:?}");
    finding.clone()
}

/// The owner of a table may write anything where a check looks. Nothing of it runs.
#[test]
fn nothing_of_an_owner_runs() {
    let fixture = fixture();
    let mut mallory = fixture.connect_as("mallory", &[]);
    fixture
        .cluster
        .sql("CREATE SCHEMA mallory AUTHORIZATION mallory; GRANT EXECUTE ON FUNCTION env_encrypt_trigger() TO mallory");
    mallory.run(
        "CREATE TABLE mallory.ran (who text);
         GRANT INSERT ON mallory.ran TO PUBLIC;
         CREATE FUNCTION mallory.note() RETURNS void VOLATILE LANGUAGE sql AS 'INSERT INTO mallory.ran VALUES (current_user)';
         CREATE FUNCTION mallory.run(anyelement) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
             'BEGIN PERFORM mallory.note(); RETURN true; END';
         CREATE FUNCTION mallory.eq(text, text) RETURNS bool LANGUAGE sql AS 'SELECT mallory.run(1)';
         CREATE OPERATOR mallory.= (LEFTARG = text, RIGHTARG = text, FUNCTION = mallory.eq);
         CREATE FUNCTION mallory.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT mallory.run(1)::text';
         CREATE DOMAIN mallory.checked AS bytea;
         CREATE TABLE mallory.\"x'; SELECT mallory.run(1); --\" (id int, value mallory.checked, \"c\n; DROP\" text);
         CREATE INDEX ON mallory.\"x'; SELECT mallory.run(1); --\" (mallory.run(value));
         INSERT INTO mallory.\"x'; SELECT mallory.run(1); --\" VALUES (1, '\\x00');
         CREATE STATISTICS mallory.s ON (mallory.run(value)), id FROM mallory.\"x'; SELECT mallory.run(1); --\";
         CREATE TRIGGER t BEFORE INSERT ON mallory.\"x'; SELECT mallory.run(1); --\" FOR EACH ROW EXECUTE FUNCTION
             env_encrypt_trigger('{\"source\": \"c\\n; DROP\", \"target\": \"value\", \"tokens\": [[7]], \"aad\": 7}', '[1]', '7');
         ALTER TABLE mallory.\"x'; SELECT mallory.run(1); --\" ADD CHECK (mallory.run(value));
         TRUNCATE mallory.ran",
    );
    let mut client = fixture.connect();
    client.run("SET search_path = mallory, public");
    let mends = client.column::<String>("SELECT mend FROM public.env_check() WHERE mend LIKE '--%'");
    assert!(mends.iter().all(|mend| !mend.contains('\n')), "a comment that goes on is a statement: {mends:?}");
    assert_eq!(client.one::<i64>("SELECT count(*) FROM mallory.ran", &[]), 0);
    client.run("DROP SCHEMA mallory CASCADE");
}

#[test]
fn a_check_waits_for_no_lock_and_looks_at_as_many_rows_as_it_is_told() {
    let fixture = fixture();
    fixture.cluster.sql(&format!(
        "CREATE TABLE locked (value bytea); INSERT INTO locked SELECT NULL FROM generate_series(1, 10);
         INSERT INTO locked VALUES (env_encrypt('a text', '{}'))",
        fixture.key_id
    ));
    let mut client = fixture.connect();
    for (rows, findings) in [("NULL", 1), ("11", 1), ("10", 0), ("0", 0)] {
        let query = format!("SELECT count(*) FROM env_check(rows => {rows}) WHERE finding = 'check_missing'");
        assert_eq!(client.one::<i64>(&query, &[]), findings, "{rows}");
    }
    let mut other = fixture.connect();
    other.run("BEGIN; LOCK TABLE locked");
    let query = "SELECT object FROM env_check() WHERE finding = 'not_examined'";
    assert_eq!(client.column::<String>(query), ["canceling statement due to lock timeout"]);
    other.run("ROLLBACK; DROP TABLE locked");
}
