//! The audit line: what a statement opened and sealed, by role and key. Counts and names, never a value.

use testkit::{Client, Fixture, Session};

testkit::shared_fixture!(Fixture::kms());

/// The audit lines that a statement adds to the log.
fn lines_of(fixture: &Fixture, statement: impl FnOnce()) -> Vec<String> {
    let all = || fixture.cluster.log_lines("envelope_pg audit: ");
    let before = all().len();
    statement();
    let text = |line: &String| line.split_once("envelope_pg audit: ").expect("the line has it").1.to_owned();
    all()[before..].iter().map(text).collect()
}

/// The client has the error before the line is written; the answer to the next statement comes behind both.
fn failing(client: &mut Client, statement: impl FnOnce(&mut Client) -> testkit::Failure) {
    statement(client);
    // In a transaction it is refused as well.
    let _ = client.batch_execute("SELECT 1");
}

fn audited(fixture: &Fixture, role: &str, audit: &str) -> Client {
    fixture.connect_as(role, &["envelope_encrypt", "envelope_decrypt"]);
    fixture.cluster.sql(&format!("ALTER ROLE {role} SET envelope_pg.audit = '{audit}'"));
    fixture.connect_as(role, &[])
}

#[test]
fn a_line_for_each_statement_role_and_key() {
    let fixture = fixture();
    let (key, other) = (fixture.key_id.clone(), fixture.new_key().arn);
    let mut client = audited(&fixture, "clinic", "all");
    fixture.cluster.sql(&format!(
        "CREATE SERVER patients FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{other}');
         GRANT USAGE ON FOREIGN SERVER patients TO PUBLIC;
         CREATE TABLE audited (value bytea); GRANT ALL ON audited TO PUBLIC"
    ));
    let role = r#"role="clinic""#;
    let insert =
        format!("INSERT INTO audited SELECT env_encrypt('the secret ' || i, '{key}') FROM generate_series(1, 7) AS i");
    let lines = lines_of(&fixture, || client.run(&insert));
    assert_eq!(lines, [format!(r#"{role} key="{key}" named_key="" opened=0 sealed=7 denied=0"#)]);
    let lines =
        lines_of(&fixture, || client.run("INSERT INTO audited SELECT env_encrypt('the secret', 'key:patients')"));
    assert_eq!(lines, [format!(r#"{role} key="{other}" named_key="patients" opened=0 sealed=1 denied=0"#)]);
    let mut lines = lines_of(&fixture, || {
        assert_eq!(client.one::<i64>("SELECT count(env_decrypt(value)) FROM audited", &[]), 8);
    });
    lines.sort();
    let mut expected = [
        format!(r#"{role} key="{key}" named_key="" opened=7 sealed=0 denied=0"#),
        format!(r#"{role} key="{other}" named_key="patients" opened=1 sealed=0 denied=0"#),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    // What reads heads only is no use of a key.
    assert!(lines_of(&fixture, || client.run("SELECT env_key_id(value) FROM audited")).is_empty());
    // Statements of a transaction, one by one; the second one fails, and is told all the same.
    client.run("BEGIN");
    let first = lines_of(&fixture, || client.run("SELECT env_decrypt(value) FROM audited LIMIT 1"));
    assert!(first.len() == 1 && first[0].contains("opened=1"), "{first:?}");
    let failed = lines_of(&fixture, || {
        failing(&mut client, |client| {
            client.fail("SELECT env_decrypt(value), 1 / (octet_length(value) - octet_length(value)) FROM audited", &[])
        });
    });
    assert!(failed.len() == 1 && failed[0].contains("opened=1 "), "{failed:?}");
    client.run("ROLLBACK");
    let log = fixture.cluster.log();
    assert!(!log.contains("the secret"), "neither a value nor the statement is in the log");
    fixture.cluster.sql("DROP TABLE audited; DROP SERVER patients");
}

#[test]
fn denied_is_what_was_refused() {
    let fixture = fixture();
    let key = fixture.new_key().arn;
    fixture.cluster.sql(&format!("CREATE SERVER closed FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{key}')"));
    let value = fixture.connect().encrypt("a text", &key);
    let mut client = audited(&fixture, "stranger", "denied");
    let open = fixture.key_id.clone();
    assert!(lines_of(&fixture, || drop(client.encrypt("a text", &open))).is_empty(), "only what was refused");
    let lines = lines_of(&fixture, || failing(&mut client, |client| client.fail_to_decrypt(&value)));
    assert_eq!(lines, [format!(r#"role="stranger" key="{key}" named_key="closed" opened=0 sealed=0 denied=1"#)]);
    let lines = lines_of(&fixture, || failing(&mut client, |client| client.fail_to_encrypt("key:closed")));
    assert!(lines.len() == 1 && lines[0].contains(r#"key="key:closed""#), "{lines:?}");
    fixture.cluster.sql("ALTER ROLE stranger SET envelope_pg.allowed_keys = 'none'");
    let mut client = fixture.connect_as("stranger", &[]);
    let lines = lines_of(&fixture, || failing(&mut client, |client| client.fail_to_encrypt(&open)));
    assert!(lines.len() == 1 && lines[0].contains("denied=1"), "{lines:?}");
    let mut off = audited(&fixture, "quiet", "off");
    assert!(lines_of(&fixture, || failing(&mut off, |off| off.fail_to_decrypt(&value))).is_empty());
    fixture.cluster.sql("DROP SERVER closed");
}

#[test]
fn the_role_is_the_current_one() {
    let fixture = fixture();
    let mut client = audited(&fixture, "pooled", "all");
    fixture.cluster.sql(
        "CREATE ROLE \"a \"\" tenant\nopened=1\" IN ROLE envelope_encrypt; GRANT \"a \"\" tenant\nopened=1\" TO pooled",
    );
    let key = fixture.key_id.clone();
    client.run("SET ROLE \"a \"\" tenant\nopened=1\"");
    let lines = lines_of(&fixture, || drop(client.encrypt("a text", &key)));
    assert!(lines.len() == 1 && lines[0].starts_with(r#"role="a \" tenant\nopened=1" key="#), "{lines:?}");
}

#[test]
fn parallel_workers_write_lines_of_their_own() {
    let fixture = fixture();
    let key = fixture.key_id.clone();
    let mut client = audited(&fixture, "parallel", "all");
    fixture.cluster.sql(&format!(
        "CREATE TABLE in_parallel AS SELECT env_encrypt(i::text, '{key}') AS value FROM generate_series(1, 500) AS i; GRANT ALL ON in_parallel TO parallel"
    ));
    client.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
    let lines = lines_of(&fixture, || {
        assert_eq!(client.one::<i64>("SELECT count(env_decrypt(value)) FROM in_parallel", &[]), 500);
    });
    let opened = |line: &String| -> u64 {
        let after = line.split_once("opened=").expect("the field is there").1;
        after.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    assert_eq!(lines.iter().map(opened).sum::<u64>(), 500, "{lines:?}");
    fixture.cluster.sql("DROP TABLE in_parallel");
}

#[test]
fn the_setting_is_not_for_everybody() {
    let fixture = fixture();
    let mut client = audited(&fixture, "sly", "all");
    // Loads the library; a session that sets it before has no key.
    client.encrypt("a text", &fixture.key_id);
    client.fail("SET envelope_pg.audit = 'off'", &[]).with("42501");
    let mut admin = fixture.connect();
    admin.run("LOAD 'envelope_pg'");
    admin.fail("SET envelope_pg.audit = 'some'", &[]).with("22023").says("off, denied or all");
}

#[test]
fn a_session_that_is_ended_tells_what_it_did() {
    let fixture = fixture();
    let key = fixture.key_id.clone();
    let mut client = audited(&fixture, "ended", "all");
    let pid = client.backend();
    let lines = lines_of(&fixture, || {
        let waiting = std::thread::spawn(move || {
            let query = "SELECT env_encrypt('a text', $1), pg_sleep(60)";
            assert!(client.query(query, &[&key]).is_err());
        });
        testkit::wait_until("it sleeps", || {
            fixture.connect().one::<bool>(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')",
                &[&pid],
            )
        });
        fixture.cluster.sql(&format!("SELECT pg_terminate_backend({pid})"));
        waiting.join().expect("it failed as it should");
        testkit::wait_until("the backend is gone", || {
            fixture.connect().one::<i64>("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", &[&pid]) == 0
        });
    });
    assert!(lines.len() == 1 && lines[0].contains("sealed=1"), "{lines:?}");
}
