//! The limit on KMS calls in a second, which all sessions of the server have in common.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Cluster, Fault, Fixture, Session, wait_until};

const WRITE: &str = "SELECT count(env_encrypt('a', $1, jsonb_build_object('n', n::text, 'of', $2::text)))
                     FROM generate_series(1, $3) AS n";

fn limited(calls: u32) -> testkit::ClusterBuilder {
    Cluster::builder()
        .setting("envelope_pg.kms_max_calls_per_second", &calls.to_string())
        .setting("envelope_pg.kms_timeout", "5s")
}

/// Encrypts in encryption contexts that nobody has used yet: one call for each.
fn make_data_keys(client: &mut Client, key_id: &str, of: &str, data_keys: i32) {
    assert_eq!(client.one::<i64>(WRITE, &[&key_id, &of, &data_keys]), i64::from(data_keys));
}

/// Two sessions of which neither has the broker, so that each would have a limit of its own.
fn calls_are_spread(fixture: &Fixture, settings: &str) {
    // What a second lets through at once, and then a second's calls more.
    let started = Instant::now();
    thread::scope(|scope| {
        for of in ["one", "two"] {
            scope.spawn(move || {
                let mut client = fixture.connect();
                client.run(settings);
                make_data_keys(&mut client, &fixture.key_id, of, 20);
            });
        }
    });
    let took = started.elapsed();
    println!("40 calls of two sessions, 20 in a second: {took:?}");
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert_eq!(fixture.kms_calls().0, 40);
}

#[test]
fn the_broker_makes_no_more_calls_in_a_second() {
    calls_are_spread(&Fixture::with_broker_and(limited(20)), "");
}

#[test]
fn sessions_without_the_broker_share_the_limit() {
    calls_are_spread(&Fixture::with_broker_and(limited(20)), "SET envelope_pg.broker = off");
}

/// A session that wants many does not keep out one that wants one.
#[test]
fn sessions_take_turns() {
    let fixture = Fixture::with_broker_and(limited(5));
    let mut reader = fixture.connect();
    reader.run("CREATE TABLE cold (value bytea)");
    let write = "INSERT INTO cold SELECT env_encrypt('a', $1, jsonb_build_object('n', n::text)) FROM generate_series(1, 40) AS n";
    let unlimited = fixture.cluster.set_for_now("envelope_pg.kms_max_calls_per_second", "0");
    reader.execute(write, &[&fixture.key_id]).expect("40 data keys");
    drop(unlimited);
    reader.run("SELECT env_cache_flush(true)");
    thread::scope(|scope| {
        let many = scope.spawn(|| fixture.connect().one::<i64>("SELECT cold FROM env_warm('cold', 'value')", &[]));
        wait_until("calls wait", || {
            fixture.connect().one::<Option<i64>>("SELECT sum(waiting_calls)::bigint FROM env_stat_broker", &[])
                > Some(5)
        });
        let started = Instant::now();
        make_data_keys(&mut fixture.connect(), &fixture.key_id, "another", 1);
        let took = started.elapsed();
        println!("one call beside 16 that wait, 5 in a second: {took:?}");
        assert!(took < Duration::from_millis(1_500), "{took:?}");
        assert_eq!(many.join().expect("it ends"), 40);
    });
}

/// A call that has no turn in time fails as one that KMS throttles, and what is in memory serves.
#[test]
fn a_call_without_a_turn_is_held_back() {
    let fixture = Fixture::with_broker_and(limited(1).setting("envelope_pg.kms_timeout", "1500ms"));
    let mut client = fixture.connect();
    let mut value = Vec::new();
    wait_until("the first call is in time", || {
        value = client.try_encrypt("a text", &fixture.key_id).unwrap_or_default();
        !value.is_empty()
    });
    let mut other = fixture.connect();
    for settings in ["", "SET envelope_pg.broker = off"] {
        other.run(settings);
        let failure = other.fail(WRITE, &[&fixture.key_id, &settings, &5]).with("53400");
        assert!(failure.message.contains("limit"), "{}", failure.message);
        assert!(failure.hint.contains("kms_max_calls_per_second"), "{}", failure.hint);
    }
    assert_eq!(client.decrypt(&value), "a text");
    // KMS is not to blame, so no circuit breaker is open.
    assert_eq!(client.one::<i64>("SELECT open_breakers FROM env_stat_broker", &[]), 0);
    let held_back = "SELECT sum(not_tried)::bigint > 0 FROM env_stat_kms WHERE source = 'broker'";
    assert!(client.one::<bool>(held_back, &[]));
}

/// In an outage calls fail at once by the circuit breaker, and do not queue.
#[test]
fn an_open_circuit_breaker_needs_no_turn() {
    let fixture = Fixture::with_broker_and(limited(2));
    fixture.proxy.set(Fault::Reset);
    let mut client = fixture.connect();
    client.fail_to_encrypt(&fixture.key_id).with("58000");
    let started = Instant::now();
    for _ in 0..20 {
        client.fail_to_encrypt(&fixture.key_id).with("58000");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
