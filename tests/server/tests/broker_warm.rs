//! `env_warm`: the data keys of many values at once.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Cluster, Fault, Fixture, Rule, Session, expect_error, wait_until};

/// Makes a table of values, of so many data keys with two values each, and flushes them all.
fn many_deks(fixture: &Fixture, table: &str, deks: i32) {
    let mut client = fixture.connect();
    client.run(&format!("CREATE TABLE {table} (n int, value bytea)"));
    // Each data key by its encryption context. With the local provider's speed, by several sessions.
    let insert = format!(
        "INSERT INTO {table} SELECT n, env_encrypt('row ' || n, $1, jsonb_build_object('n', n::text))
         FROM generate_series(1, $2::int) AS n, generate_series(1, 2)"
    );
    client.execute(&insert, &[&fixture.key_id, &deks]).expect("the rows are written");
    client.run("SELECT env_cache_flush(true)");
    fixture.proxy.reset_counts();
}

/// cold, warm, failed
fn counts(client: &mut Client, from: &str) -> (i64, i64, i64) {
    let row = client.query_one(&format!("SELECT cold, warm, failed FROM {from}"), &[]);
    let row = row.unwrap_or_else(|error| panic!("{from}: {error:?}"));
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn it_counts_and_what_it_has_unwrapped_needs_no_call() {
    for fixture in [Fixture::with_broker(), Fixture::kms()] {
        many_deks(&fixture, "warmed", 20);
        let mut client = fixture.connect();
        client.run("INSERT INTO warmed VALUES (0, NULL), (0, ''), (0, 'no value of ours'), (0, '\\xf645')");
        let aggregate = "(SELECT (env_warm(value)).* FROM warmed WHERE n <= 5) AS w";
        assert_eq!(counts(&mut client, aggregate), (5, 0, 0), "the aggregate");
        assert_eq!(fixture.kms_calls(), (0, 5));
        let array = "env_warm((SELECT array_agg(value) FROM warmed WHERE n <= 10))";
        assert_eq!(counts(&mut client, array), (5, 5, 0), "the array");
        assert_eq!(fixture.kms_calls(), (0, 10));
        assert_eq!(counts(&mut client, "env_warm('warmed', 'value')"), (10, 10, 0), "the relation");
        assert_eq!(fixture.kms_calls(), (0, 20));
        assert_eq!(counts(&mut client, "env_warm('warmed', 'value')"), (0, 20, 0), "once more");
        let right = "SELECT count(*) FROM warmed WHERE env_is_envelope(value) AND env_decrypt(value) = 'row ' || n";
        assert_eq!(client.one::<i64>(right, &[]), 40);
        assert_eq!(fixture.kms_calls(), (0, 20));
        // Nothing to do.
        for from in [
            "env_warm('{}'::bytea[])",
            "env_warm(NULL::bytea[])",
            "env_warm(ARRAY[NULL]::bytea[])",
            "env_warm(ARRAY['\\x00'::bytea])",
        ] {
            assert_eq!(counts(&mut client, from), (0, 0, 0), "{from}");
        }
        assert!(client.one::<bool>("SELECT env_warm(value) IS NOT NULL FROM warmed WHERE false", &[]));
    }
}

#[test]
fn many_at_a_time() {
    // So slow that a busy machine's own time does not count beside it.
    const DEKS: i32 = 40;
    const DELAY: Duration = Duration::from_millis(100);
    let fixture = Fixture::with_broker();
    many_deks(&fixture, "slow", DEKS);
    fixture.proxy.set(Fault::Delay(DELAY));
    let timed = |query: &str| {
        let mut client = fixture.connect();
        client.run("SELECT env_cache_flush(true)");
        fixture.proxy.reset_counts();
        let started = Instant::now();
        client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let took = started.elapsed();
        assert_eq!(fixture.kms_calls(), (0, DEKS as usize), "{query}");
        took
    };
    // A read in another order than any before is what reading ahead does not help.
    let serial = timed("SELECT count(env_decrypt(value)) FROM (SELECT value FROM slow ORDER BY md5(n::text)) AS s");
    let warmed = timed("SELECT env_warm('slow', 'value')");
    println!(
        "{DEKS} data keys at {DELAY:?}: serial {serial:?}, env_warm {warmed:?}, ratio {:.1}",
        serial.div_duration_f64(warmed)
    );
    assert!(warmed < serial / 3, "serial {serial:?}, env_warm {warmed:?}");
}

#[test]
fn keys_that_fail_are_counted_and_the_others_are_warmed() {
    let fixture = Fixture::with_broker();
    let (refused, forbidden) = (fixture.new_key().arn, fixture.new_key().arn);
    let mut client = fixture.connect();
    client.run("CREATE TABLE mixed (value bytea)");
    for key in [&fixture.key_id, &refused, &forbidden] {
        for n in 0..4 {
            let insert = format!("INSERT INTO mixed SELECT env_encrypt('a', $1, '{{\"n\": \"{n}\"}}')");
            client.execute(&insert, &[key]).expect("the row is written");
        }
    }
    // One whose wrapped data key was changed in its last byte.
    client.run(
        "INSERT INTO mixed SELECT set_byte(value, 42 + 2 + get_byte(value, 38) * 256 + get_byte(value, 39) - 4
             + get_byte(value, 40 + get_byte(value, 38) * 256 + get_byte(value, 39)) * 256
             + get_byte(value, 41 + get_byte(value, 38) * 256 + get_byte(value, 39)) + 1 - 3, 0)
         FROM (SELECT value FROM mixed LIMIT 1) AS one",
    );
    client.run("SELECT env_cache_flush(true)");
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).for_key(&refused));
    client.run(&format!("SET envelope_pg.allowed_keys = '{}, {refused}'", fixture.key_id));
    let (cold, warm, failed) = counts(&mut client, "env_warm('mixed', 'value')");
    assert_eq!((cold, warm), (13, 0));
    assert_eq!(failed, 4 + 4 + 1, "refused, not allowed, changed");
    assert_eq!(fixture.proxy.calls_for(&forbidden, "Decrypt"), 0, "KMS is not asked about a key that is not allowed");
    let readable =
        format!("SELECT count(env_decrypt(value)) FROM mixed WHERE env_key_id(value) = '{}'", fixture.key_id);
    let changed = "DELETE FROM mixed WHERE ctid = (SELECT max(ctid) FROM mixed)";
    client.run(changed);
    fixture.proxy.reset_counts();
    assert_eq!(client.one::<i64>(&readable, &[]), 4);
    assert_eq!(fixture.kms_calls(), (0, 0));
}

#[test]
fn it_can_be_cancelled_and_leaves_what_it_has() {
    let fixture = Fixture::with_broker();
    many_deks(&fixture, "cancelled", 300);
    fixture.proxy.set(Fault::Delay(Duration::from_millis(100)));
    let mut client = fixture.connect();
    client.run("SET statement_timeout = '700ms'");
    let started = Instant::now();
    expect_error(client.query("SELECT env_warm('cancelled', 'value')", &[])).with("57014");
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    fixture.proxy.clear();
    wait_until("the calls that were under way are over", || fixture.proxy.hanging() == 0);
    let calls = fixture.proxy.calls("Decrypt");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(fixture.proxy.calls("Decrypt"), calls, "nobody goes on with it");
    assert!((16..300).contains(&calls), "{calls}");
    client.run("RESET statement_timeout");
    let (cold, warm, failed) = counts(&mut client, "env_warm('cancelled', 'value')");
    println!("cancelled after {calls} calls: then {cold} cold, {warm} warm");
    assert!(warm > 0 && failed == 0 && cold + warm == 300);
    assert!(fixture.proxy.calls("Decrypt") <= 300 + 16, "{} in all", fixture.proxy.calls("Decrypt"));
}

#[test]
fn what_does_not_fit_the_session_is_in_the_broker() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_entries", "10"));
    many_deks(&fixture, "large", 60);
    let mut client = fixture.connect();
    assert_eq!(counts(&mut client, "env_warm('large', 'value')"), (60, 0, 0));
    assert_eq!(client.one::<i64>("SELECT count(env_decrypt(value)) FROM large", &[]), 120);
    assert_eq!(fixture.kms_calls(), (0, 60));
}

#[test]
fn it_is_no_way_around_grants() {
    let fixture = Fixture::with_broker();
    many_deks(&fixture, "private", 2);
    let mut reader = fixture.connect_as("warm_reader", &["envelope_decrypt"]);
    reader.fail("SELECT env_warm('private', 'value')", &[]).with("42501").says("private");
    let mut writer = fixture.connect_as("warm_writer", &["envelope_encrypt"]);
    writer.fail("SELECT env_warm('{}'::bytea[])", &[]).with("42501");
    let mut all = fixture.connect();
    all.fail("SELECT env_warm('private', 'no_such_column')", &[]).with("42703");
    all.fail("SELECT env_warm('private', 'n')", &[]).with("42804");
    all.run("CREATE SCHEMA \"odd \"\"schema\"; CREATE TABLE \"odd \"\"schema\".\"t'; --\" (\"c\"\"; --\" bytea)");
    assert_eq!(counts(&mut all, "env_warm('\"odd \"\"schema\".\"t''; --\"', 'c\"; --')"), (0, 0, 0));
    // The parts of the aggregate are of no use alone.
    for call in ["SELECT envelope_internal.warm_transition(NULL, '\\x00')", "SELECT envelope_internal.warm_final(NULL)"]
    {
        let _ = all.query(call, &[]);
        all.run("SELECT 1");
    }
    // As a window function the same state is read again and again.
    let window = "SELECT count(*) FROM (SELECT env_warm(value) OVER (ORDER BY n) FROM private) AS w";
    assert_eq!(all.one::<i64>(window, &[]), 4);
}

#[test]
fn a_long_one_says_how_far_it_is() {
    let fixture = Fixture::with_broker();
    many_deks(&fixture, "slow", 64);
    // 16 at a time: four rounds of 2 s.
    fixture.proxy.set(Fault::Delay(Duration::from_secs(2)));
    let warm = "SELECT (env_warm(value)).* FROM slow";
    let said = fixture.cluster.run("psql", &["--no-psqlrc", "--dbname=postgres", "--command", warm]);
    let said = String::from_utf8_lossy(&said.stderr);
    let notices: Vec<_> = said.lines().filter(|line| line.contains("NOTICE")).collect();
    assert!(!notices.is_empty() && notices.len() <= 4, "{said}");
    assert!(notices[0].contains("of 64 data keys so far, 0 failed"), "{said}");
}
