//! The broker follows the configuration, and works wherever statements run.

use std::thread;
use std::time::{Duration, Instant};

use testkit::emulator::REGION;
use testkit::{Client, Cluster, Emulator, Fault, FaultProxy, Fixture, Rule, Session, wait_until};

#[test]
fn turned_off_and_on_while_it_runs() {
    let fixture = Fixture::with_broker();
    let mut session = fixture.connect();
    let value = session.encrypt("a text", &fixture.key_id);
    fixture.cluster.set("envelope_pg.broker", "off");
    fixture.proxy.reset_counts();
    assert_eq!(session.decrypt(&value), "a text");
    assert_eq!(fixture.proxy.total_calls(), 0, "what a session has it keeps");
    for expected in 1..=3 {
        assert_eq!(fixture.connect().decrypt(&value), "a text");
        assert_eq!(fixture.kms_calls(), (0, expected), "each session calls KMS");
    }
    fixture.cluster.set("envelope_pg.broker", "on");
    fixture.proxy.reset_counts();
    for _ in 0..3 {
        assert_eq!(fixture.connect().decrypt(&value), "a text");
    }
    assert!(fixture.kms_calls().1 <= 1);
    assert_eq!(fixture.cluster.brokers().len(), 1);
    assert!(fixture.cluster.log_lines("not available").is_empty());
}

#[test]
fn turned_off_for_a_role_or_a_session() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let mut client = fixture.connect();
    client.run("SET envelope_pg.broker = off");
    client.decrypt(&value);
    assert_eq!(fixture.kms_calls(), (1, 1));
    let mut reader = fixture.connect_as("reader", &["envelope_decrypt"]);
    // From when the library is loaded on it is known who may.
    reader.decrypt(&value);
    reader.fail("SET envelope_pg.broker = off", &[]).with("42501");
}

#[test]
fn another_endpoint_is_asked_from_the_next_statement_on() {
    let fixture = Fixture::with_broker();
    let others = [FaultProxy::start(Emulator::shared().address()), FaultProxy::start(Emulator::shared().address())];
    let mut session = fixture.connect();
    session.encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    let key = |number: usize| -> String { [&fixture, &fixture][number % 2].new_key().arn };
    for round in 0..4 {
        let (now, before) = (&others[round % 2], &others[(round + 1) % 2]);
        fixture.cluster.set("envelope_pg.kms_endpoint_url", &now.url());
        now.reset_counts();
        before.reset_counts();
        fixture.proxy.reset_counts();
        session.encrypt("a text", &key(round));
        fixture.connect().encrypt("a text", &key(round));
        assert_eq!(now.calls("GenerateDataKey"), 2, "round {round}");
        assert_eq!((before.total_calls(), fixture.proxy.total_calls()), (0, 0), "round {round}");
    }
    assert_eq!(fixture.cluster.broker(), broker);
}

#[test]
fn a_time_limit_that_was_changed_is_in_force() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.proxy.set(Fault::Hang);
    fixture.cluster.set("envelope_pg.kms_timeout", "700ms");
    let started = Instant::now();
    fixture.connect().fail_to_encrypt(&fixture.new_key().arn).with("58000");
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(2)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn an_outage_is_logged_by_the_broker_once() {
    let fixture = Fixture::with_broker_and(
        Cluster::builder().setting("envelope_pg.kms_timeout", "500ms").setting("envelope_pg.kms_max_attempts", "1"),
    );
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    fixture.connect().run("SELECT env_cache_flush(true)");
    fixture.proxy.refuse();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..5 {
                    fixture.connect().fail_to_decrypt(&value).with("58000");
                }
            });
        }
    });
    fixture.proxy.clear();
    fixture.connect().decrypt_when_back(&value);
    wait_until("the end of the outage is logged", || !fixture.cluster.log_lines("outage ended").is_empty());
    for text in ["KMS outage began", "KMS outage ended"] {
        let lines = fixture.cluster.log_lines(text);
        // One for the region, and one for the endpoint or the key at most.
        assert!((1..=2).contains(&lines.len()), "{text}: {lines:#?}");
        assert!(lines.iter().all(|line| line.contains(&format!("[{broker}]"))), "{lines:#?}");
    }
}

#[test]
fn one_breaker_for_all_sessions() {
    let fixture = Fixture::with_broker_and(
        Cluster::builder().setting("envelope_pg.kms_timeout", "1s").setting("envelope_pg.kms_max_attempts", "1"),
    );
    fixture.connect().run("SELECT env_is_envelope('')");
    fixture.proxy.set(Fault::Hang);
    fixture.connect().fail_to_encrypt(&fixture.key_id).with("58000");
    let started = Instant::now();
    for _ in 0..5 {
        fixture.connect().fail_to_encrypt(&fixture.key_id).with("58000");
    }
    println!("5 new sessions against an open breaker: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(4), "the others wait for no call: {:?}", started.elapsed());
}

fn in_parallel(client: &mut Client) {
    client.run(
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
}

#[test]
fn parallel_workers_ask_it() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    client.run("CREATE TABLE in_parallel (id int, value bytea)");
    let insert = "INSERT INTO in_parallel SELECT id, env_encrypt('row ' || id, $1) FROM generate_series(1, 5000) AS id";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are written");
    client.run("ANALYZE in_parallel");
    let mut reader = fixture.connect();
    in_parallel(&mut reader);
    let query = "SELECT count(*) FROM in_parallel WHERE env_decrypt(value) = 'row ' || id";
    let plan: Vec<String> = reader.column(&format!("EXPLAIN (ANALYZE, COSTS OFF) {query}"));
    assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{plan:#?}");
    assert_eq!(reader.one::<i64>(query, &[]), 5_000);
    assert_eq!(fixture.kms_calls(), (1, 0), "the workers got it from the broker");
    // When they are the first in need they start it, although they are workers themselves.
    drop(reader);
    fixture.cluster.stop_broker();
    let mut reader = fixture.connect();
    in_parallel(&mut reader);
    assert_eq!(reader.one::<i64>(query, &[]), 5_000);
    assert_eq!(fixture.kms_calls(), (1, 1));
    assert_eq!(fixture.cluster.brokers().len(), 1);
}

#[test]
fn databases_of_other_encodings_share_it() {
    let fixture = Fixture::with_broker();
    let text = "\u{e4}\u{fc}";
    let value = fixture.connect().encrypt(text, &fixture.key_id);
    for (name, encoding) in [("latin", "LATIN1"), ("ascii", "SQL_ASCII")] {
        fixture.cluster.sql(&format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"));
        let mut client = fixture.cluster.connect("postgres", name);
        client.run("CREATE EXTENSION envelope_pg");
        assert_eq!(client.decrypt(&value), text, "{encoding}");
        let sealed = client.encrypt(text, &fixture.key_id);
        assert_eq!(fixture.connect().decrypt(&sealed), text, "{encoding}");
    }
    assert_eq!(fixture.kms_calls(), (1, 0));
}

#[test]
fn it_does_not_hinder_dropping_a_database_that_used_it() {
    let fixture = Fixture::with_broker();
    fixture.cluster.sql("CREATE DATABASE short_lived");
    let mut client = fixture.cluster.connect("postgres", "short_lived");
    client.run("CREATE EXTENSION envelope_pg");
    client.encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    drop(client);
    let started = Instant::now();
    fixture.cluster.sql("DROP DATABASE short_lived");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(fixture.cluster.broker(), broker);
}

/// A region that is named by no ARN, and a request that is cancelled while others wait for the same.
#[test]
fn a_cancelled_statement_takes_nobody_with_it() {
    let fixture = Fixture::with_broker();
    assert_eq!(fixture.connect().one::<String>("SHOW envelope_pg.kms_region", &[]), REGION);
    fixture.proxy.set(Rule::every(Fault::Delay(Duration::from_millis(800))).times(1));
    let mut first = fixture.connect();
    let pid = first.backend();
    thread::scope(|scope| {
        let key_id = &fixture.key_id;
        let cancelled = scope.spawn(move || first.fail_to_encrypt(key_id));
        wait_until("the call is under way", || fixture.kms_calls().0 == 1);
        let mut other = fixture.connect();
        let other_pid = other.backend();
        let waiting = scope.spawn(move || other.encrypt("a text", key_id));
        fixture.connect().see_waiting(other_pid);
        fixture.connect().run(&format!("SELECT pg_cancel_backend({pid})"));
        cancelled.join().expect("no thread panics").with("57014");
        waiting.join().expect("the other goes on");
    });
    assert_eq!(fixture.kms_calls(), (1, 0), "the call that both waited for");
}
