//! env_inventory and env_key_usage: what other sessions do meanwhile, parallel workers, and no KMS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testkit::{Client, Fixture, Session, wait_until};

/// The first row of env_key_usage: the answer, rows, and detail.
fn answer(client: &mut Client, key_id: &str) -> (String, i64, String) {
    let row = client.query_one("SELECT state, rows, detail FROM env_key_usage($1) LIMIT 1", &[&key_id]);
    let row = row.expect("there is an answer");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn the_answer_needs_no_kms_and_is_right_about_a_key() {
    let fixture = Fixture::kms();
    let (other, unused) = (fixture.new_key().arn, fixture.new_key().arn);
    let mut client = fixture.connect();
    client.run(&format!(
        "CREATE TABLE t (id int, a bytea, b bytea);
         INSERT INTO t SELECT i, env_encrypt('a', '{}'), CASE WHEN i % 2 = 0 THEN env_encrypt('b', '{other}') END
             FROM generate_series(1, 100) AS i",
        fixture.key_id
    ));
    let made = fixture.proxy.total_calls();
    fixture.proxy.refuse();
    let mut client = fixture.connect();
    assert_eq!(answer(&mut client, &fixture.key_id).0, "in use");
    assert_eq!(answer(&mut client, &fixture.key_id).1, 100);
    assert_eq!(answer(&mut client, &other).1, 50);
    let (state, rows, detail) = answer(&mut client, &unused);
    assert_eq!((state.as_str(), rows), ("not in use", 0));
    assert!(detail.contains("database postgres: 2 of 2 bytea columns in 1 relations"), "{detail}");
    let listed = "SELECT count(*) FROM env_inventory() WHERE content = 'envelope' AND deks = 1";
    assert_eq!(client.one::<i64>(listed, &[]), 2);
    assert_eq!(fixture.proxy.total_calls(), made);
}

#[test]
fn a_table_that_cannot_be_read_now_makes_the_answer_incomplete() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    client.run("CREATE TABLE locked (v bytea); INSERT INTO locked SELECT env_encrypt('x'::text, 'local:dev')");
    client.run("CREATE TABLE readable AS SELECT v FROM locked");
    let mut other = fixture.connect();
    other.run("BEGIN; LOCK TABLE locked");
    client.run("SET lock_timeout = '100ms'");
    let (state, _, detail) = answer(&mut client, "local:unused");
    assert_eq!(state, "incomplete");
    assert!(detail.contains("1 of 2 bytea columns"), "{detail}");
    let reason = "SELECT detail FROM env_key_usage('local:unused') WHERE state = 'not examined' AND relation = 'locked'::regclass";
    assert!(client.one::<String>(reason, &[]).contains("lock timeout"));
    assert_eq!(answer(&mut client, "local:dev").1, 1);
    // A cancel is not taken for an obstacle.
    client.run("RESET lock_timeout; SET statement_timeout = '100ms'");
    client.fail("SELECT * FROM env_key_usage('local:unused')", &[]).with("57014");
    other.run("COMMIT");
    client.run("RESET statement_timeout");
    assert_eq!(answer(&mut client, "local:unused").0, "not in use");
    assert_eq!(answer(&mut client, "local:dev").1, 2);

    // A temporary table of another session may hold anything.
    other.run("CREATE TEMP TABLE theirs AS SELECT v FROM locked");
    assert_eq!(answer(&mut client, "local:unused").0, "incomplete");
}

#[test]
fn a_table_that_is_being_rewritten_is_read_as_it_is_then() {
    let fixture = Fixture::local();
    let mut other = fixture.connect();
    other.run("CREATE TABLE rewritten (id int, v bytea)");
    other.run("INSERT INTO rewritten SELECT i, env_encrypt('x'::text, 'local:dev') FROM generate_series(1, 10) AS i");
    other.run("BEGIN; ALTER TABLE rewritten ALTER id TYPE bigint");
    let mut client = fixture.connect();
    let asking = thread::spawn(move || answer(&mut client, "local:dev"));
    wait_until("it waits for the table", || {
        fixture.connect().one::<i64>("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'", &[]) > 0
    });
    other.run("COMMIT");
    let (state, rows, _) = asking.join().expect("no panic");
    assert_eq!((state.as_str(), rows), ("in use", 10));
    // A snapshot for the whole transaction would not see it.
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    other.fail("SELECT * FROM env_key_usage('local:dev')", &[]).with("25001");
    other.run("ROLLBACK");
}

#[test]
fn settings_of_the_planner_change_nothing() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    client.run(
        "CREATE TABLE large (id int, a bytea, b bytea);
         INSERT INTO large SELECT i, env_encrypt('a'::text, 'local:dev'), env_encrypt(repeat('b', 10), 'local:dev')
             FROM generate_series(1, 30000) AS i;
         ANALYZE large",
    );
    let inventory = "SELECT string_agg(i::text, E'\\n') FROM env_inventory() AS i";
    client.run("SET max_parallel_workers_per_gather = 0");
    let serial: String = client.one(inventory, &[]);
    assert!(serial.contains("30000"), "{serial}");
    client.run("SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0");
    assert_eq!(client.one::<String>(inventory, &[]), serial);
}

#[test]
fn tables_that_come_and_go_do_not_make_the_answer_incomplete() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    client.run(
        "CREATE SCHEMA tenant; CREATE SCHEMA another;
         CREATE TABLE tenant.kept AS SELECT env_encrypt('text', 'local:dev') AS value;
         CREATE TABLE another.without (value bytea)",
    );
    let stop = AtomicBool::new(false);
    let come_and_go = |mut client: Client| {
        while !stop.load(Ordering::Relaxed) {
            client.run("CREATE TABLE another.fleeting AS SELECT env_encrypt('text', 'local:dev') AS value");
            client.run("DROP TABLE another.fleeting");
        }
    };
    thread::scope(|scope| {
        let others = scope.spawn(|| come_and_go(fixture.connect()));
        for _ in 0..50 {
            let incomplete = "SELECT count(*) FROM env_key_usage('local:other') WHERE state <> 'not in use'";
            assert_eq!(client.one::<i64>(incomplete, &[]), 0);
        }
        stop.store(true, Ordering::Relaxed);
        others.join().expect("it can create and drop");
    });
    // One schema, as that of a tenant.
    for (schema, state) in [("tenant", "in use"), ("another", "not in use")] {
        let row = client
            .query_one("SELECT state, detail FROM env_key_usage('local:dev', $1::text::name) LIMIT 1", &[&schema]);
        let row = row.expect("there is an answer");
        assert_eq!(row.get::<_, &str>(0), state);
        assert!(row.get::<_, &str>(1).contains(&format!("schema {schema}: 1 of 1")), "{}", row.get::<_, &str>(1));
    }
    client.fail("SELECT * FROM env_key_usage('local:dev', 'missing')", &[]).with("3F000");
}
