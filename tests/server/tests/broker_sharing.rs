//! What the broker is for: the number of data keys and of KMS calls does not grow with the number of sessions.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Cluster, Fault, Fixture, Rule, Session, wait_until};

const SESSIONS: usize = 200;
const ROWS: i64 = 50;
/// Connected at the same time.
const AT_A_TIME: usize = 40;

/// What the sessions left behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    deks: i64,
    generate_data_key: usize,
    decrypt: usize,
}

/// Has 200 sessions connect, write 50 rows each in single statements, and leave.
fn write_and_leave(fixture: &Fixture) -> (Left, Duration) {
    fixture.cluster.sql("CREATE TABLE written (session int, id int, value bytea)");
    fixture.proxy.reset_counts();
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let session = next.fetch_add(1, Ordering::Relaxed) as i32;
                    if session as usize >= SESSIONS {
                        break;
                    }
                    let mut client = fixture.connect();
                    let insert = "INSERT INTO written VALUES ($1, $2, env_encrypt($1::int || ' ' || $2::int, $3))";
                    let insert = client.prepare(insert).expect("the statement is well-formed");
                    for id in 0..ROWS as i32 {
                        client.execute(&insert, &[&session, &id, &fixture.key_id]).expect("the row is written");
                    }
                }
            });
        }
    });
    let took = started.elapsed();
    let mut client = fixture.connect();
    assert_eq!(client.one::<i64>("SELECT count(*) FROM written", &[]), SESSIONS as i64 * ROWS);
    let deks = client.one("SELECT count(DISTINCT env_dek_id(value)) FROM written", &[]);
    let (generate_data_key, decrypt) = fixture.kms_calls();
    (Left { deks, generate_data_key, decrypt }, took)
}

const RIGHT: &str = "SELECT count(*) FROM written WHERE env_decrypt(value) = session || ' ' || id";

#[test]
fn two_hundred_sessions_leave_one_data_key() {
    let fixture = Fixture::with_broker();
    let (left, took) = write_and_leave(&fixture);
    println!("200 sessions with the broker: {left:?} in {took:?}");
    assert_eq!(left, Left { deks: 1, generate_data_key: 1, decrypt: 0 });

    // A new session asks the broker, and the broker nobody.
    fixture.proxy.reset_counts();
    let mut reader = fixture.connect();
    assert_eq!(reader.one::<i64>(RIGHT, &[]), SESSIONS as i64 * ROWS);
    assert_eq!(fixture.proxy.total_calls(), 0, "reading what is in the broker costs no call");
    assert_eq!(fixture.cluster.brokers().len(), 1);
    let mut complaints = ["WARNING", "ERROR"].map(|level| fixture.cluster.log_lines(level)).concat();
    // What CREATE EXTENSION says of the schema public as it is before PostgreSQL 15.
    complaints.retain(|line| !line.contains("others may create objects in the schema of envelope_pg"));
    assert!(complaints.is_empty(), "{complaints:?}");
    // Neither the sessions nor their connections stay with it.
    let connections: i64 = reader.one("SELECT connections FROM env_stat_broker", &[]);
    assert_eq!(connections, 1, "only the one that asks");
    let sockets = fs::read_dir(format!("/proc/{}/fd", fixture.cluster.broker())).expect("root reads it").count();
    assert!(sockets < 64, "{sockets} descriptors are open");
}

#[test]
fn without_the_broker_each_session_leaves_one() {
    // No attempt is to be repeated because the machine is busy.
    let fixture = Fixture::kms_with(Cluster::builder().setting("envelope_pg.kms_timeout", "1min"));
    let (left, took) = write_and_leave(&fixture);
    println!("200 sessions without the broker: {left:?} in {took:?}");
    assert_eq!(left, Left { deks: 200, generate_data_key: 200, decrypt: 0 });
    assert!(fixture.cluster.brokers().is_empty(), "it was never started");
}

/// pgbench, each transaction on a connection of its own. Returns the transactions that it made.
fn churn(fixture: &Fixture) -> i64 {
    fixture.cluster.sql("CREATE TABLE churned (id bigserial, value bytea)");
    fixture.proxy.reset_counts();
    let script = fixture.cluster.directory().join("churn.sql");
    let text = format!(
        "INSERT INTO churned (value) VALUES (env_encrypt('row', '{}')) RETURNING env_decrypt(value);\n\
         SELECT env_decrypt(value) FROM churned ORDER BY id LIMIT 1;\n",
        fixture.key_id
    );
    fs::write(&script, text).expect("the directory can be written");
    let script = script.to_str().expect("the path is UTF-8");
    let output = fixture.cluster.run("pgbench", &["-n", "-C", "-c8", "-j2", "-t25", "-f", script, "postgres"]);
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept = |line: &&str| line.starts_with("latency average") || line.starts_with("average connection");
    println!("{}", report.lines().filter(kept).collect::<Vec<_>>().join("; "));
    fixture.connect().one("SELECT count(*) FROM churned", &[])
}

#[test]
fn pgbench_with_a_connection_for_each_transaction_makes_one_data_key() {
    let fixture = Fixture::with_broker();
    assert_eq!(churn(&fixture), 200);
    println!("pgbench -C, 200 transactions with the broker: {:?} calls", fixture.kms_calls());
    assert_eq!(fixture.kms_calls(), (1, 0));
}

#[test]
fn sessions_that_need_the_same_data_keys_at_the_same_time_cost_one_call_for_each() {
    const KEYS: usize = 20;
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    writer.run("CREATE TABLE wide (value bytea)");
    for context in 0..KEYS {
        let insert = format!("INSERT INTO wide SELECT env_encrypt('a', $1, '{{\"n\": \"{context}\"}}')");
        writer.execute(&insert, &[&fixture.key_id]).expect("the row is written");
    }
    writer.run("SELECT env_cache_flush(true)");
    fixture.proxy.set(testkit::Fault::Delay(Duration::from_millis(30)));
    fixture.proxy.reset_counts();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut reader = fixture.connect();
                assert_eq!(reader.one::<i64>("SELECT count(env_decrypt(value)) FROM wide", &[]), KEYS as i64);
            });
        }
    });
    assert_eq!(fixture.kms_calls(), (0, KEYS), "12 sessions over {KEYS} data keys");
}

#[test]
fn a_preloaded_library_makes_no_difference() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("shared_preload_libraries", "envelope_pg"));
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let mut reader = fixture.connect();
    assert_eq!(reader.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (1, 0));
    assert_eq!(fixture.cluster.brokers().len(), 1);
}

/// Connections to KMS that a burst has made: a few stay for a while, and none for ever.
#[test]
fn connections_of_a_burst_are_closed_when_they_are_idle() {
    let fixture = Fixture::with_broker();
    let contexts = 0..AT_A_TIME;
    fixture.proxy.set(Rule::every(Fault::Delay(Duration::from_millis(500))));
    thread::scope(|scope| {
        for context in contexts {
            let fixture = &fixture;
            scope.spawn(move || {
                let sql = "SELECT env_encrypt('a text', $1, jsonb_build_object('context', $2::text))";
                fixture.connect().one::<Vec<u8>>(sql, &[&fixture.key_id, &context.to_string()]);
            });
        }
        wait_until("there are many at a time", || fixture.proxy.open_connections() > 12);
    });
    let (burst, ended) = (fixture.proxy.open_connections(), Instant::now());
    wait_until("few stay", || fixture.proxy.open_connections() <= 8);
    // They are looked at once in 20 s, and closed if nobody has used them for so long: after 40 s at the latest.
    thread::sleep(Duration::from_secs(15));
    wait_until("none stays", || fixture.proxy.open_connections() == 0);
    println!("{burst} connections after the burst, none {:?} later", ended.elapsed());
    assert!(ended.elapsed() > Duration::from_secs(5), "some are kept for the next calls");
}
