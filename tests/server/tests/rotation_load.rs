//! A large table is rotated while others write the same rows: nothing is lost, every value opens, and what it costs them.
//! `ROWS` makes it larger, and `BASELINE_SECONDS` the time that
//! writers are alone: `make rotation-load`.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use server_tests::random::Random;
use server_tests::{Client, Cluster, Fixture, Session};

const WRITERS: usize = 2;
/// Between two statements of a writer: it is the latency that is measured, and not how much the machine can do.
const THINK_TIME: Duration = Duration::from_millis(2);

fn from_environment(name: &str, default: i64) -> i64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// What a writer did.
#[derive(Default)]
struct Written {
    latencies: Vec<Duration>,
    /// How often it has raised the counter of a row.
    raised: i64,
}

/// Raises the counters of random rows, and seals each new state under `key_id`, until told to stop.
fn write(mut client: Client, seed: u64, rows: i64, key_id: &str, stop: &AtomicBool) -> Written {
    let mut random = Random::new(seed);
    let mut written = Written::default();
    // Each session seals with a data key of its own. One that was made before the run would be a suspect, so writers have
    // to take new ones for a reencrypting run to come to an end.
    client.run("SET envelope_pg.dek_max_age = '1s'");
    let update = client
        .prepare(
            "UPDATE load SET counter = counter + 1, value = env_encrypt(id || ':' || counter + 1, $2) WHERE id = $1",
        )
        .expect("the table is there");
    while !stop.load(Ordering::Relaxed) {
        let id = 1 + random.below(rows);
        let started = Instant::now();
        let updated = client.execute(&update, &[&id, &key_id]);
        written.latencies.push(started.elapsed());
        assert_eq!(updated.expect("a writer never fails"), 1);
        written.raised += 1;
        thread::sleep(THINK_TIME);
    }
    written
}

/// Runs `work` while writers write; says how often they did, and prints how long it took them.
fn with_writers(fixture: &Fixture, rows: i64, key_id: &str, what: &str, work: impl FnOnce()) -> i64 {
    let stop = AtomicBool::new(false);
    let mut all = Written::default();
    thread::scope(|scope| {
        let spawn = |number: usize| {
            let (client, stop) = (fixture.connect(), &stop);
            scope.spawn(move || write(client, number as u64 + 1, rows, key_id, stop))
        };
        let writers: Vec<_> = (0..WRITERS).map(spawn).collect();
        work();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let written = writer.join().expect("no writer panics");
            all.raised += written.raised;
            all.latencies.extend(written.latencies);
        }
    });
    all.latencies.sort();
    let at = |part: f64| all.latencies[((all.latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!(
        "writers {what}: {} updates, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        all.raised,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    all.raised
}

/// Runs a statement, prints and returns its rows per second.
fn timed(client: &mut Client, what: &str, rows: i64, statement: &str) -> f64 {
    let started = Instant::now();
    client.run(statement);
    let elapsed = started.elapsed().as_secs_f64();
    println!("{what}: {rows} rows in {elapsed:.2} s, {:.0} rows/s", rows as f64 / elapsed);
    rows as f64 / elapsed
}

fn check(client: &mut Client, rows: i64, raised: i64, key_id: &str) {
    let intact = "SELECT count(*) FROM load WHERE env_decrypt(value) = id || ':' || counter";
    assert_eq!(client.one::<i64>(intact, &[]), rows, "every value opens to the state of its row");
    assert_eq!(client.one::<i64>("SELECT sum(counter)::bigint FROM load", &[]), raised, "no update was lost");
    let under: i64 = client.one("SELECT count(*) FROM load WHERE env_key_id(value) = $1", &[&key_id]);
    assert_eq!(under, rows);
}

#[test]
fn others_write_while_a_large_table_is_rotated() {
    let rows = from_environment("ROWS", 200_000);
    let idle_seconds = from_environment("BASELINE_SECONDS", 2);
    let fixture = Fixture::kms_with(
        Cluster::builder().setting("shared_buffers", "256MB").setting("max_wal_size", "4GB").setting("jit", "off"),
    );
    let (old, new) = (fixture.key_id.clone(), fixture.new_key().arn);
    let mut client = fixture.connect();
    client.run("CREATE TABLE load (id bigint PRIMARY KEY, counter bigint NOT NULL DEFAULT 0, value bytea)");
    let fill =
        format!("INSERT INTO load SELECT i, 0, env_encrypt(i || ':0', '{old}') FROM generate_series(1, {rows}) AS i");
    timed(&mut client, "encrypt and insert", rows, &fill);
    client.run("VACUUM ANALYZE load");

    // Alone: the same rows, each time in a table as they were filled.
    let copy = |client: &mut Client| {
        client.run("DROP TABLE IF EXISTS copy; CREATE TABLE copy AS TABLE load");
        client.run("VACUUM ANALYZE copy");
        client.run("CHECKPOINT");
    };
    copy(&mut client);
    let plain =
        timed(&mut client, "plain UPDATE copy SET value = value || ''", rows, "UPDATE copy SET value = value || ''");
    for method in ["rewrap", "reencrypt"] {
        copy(&mut client);
        let planned = client
            .query_one(
                "SELECT wal_bytes, rows_to_change FROM env_rotation_plan('copy', 'value', $1, $2)",
                &[&new, &method],
            )
            .expect("a plan");
        // A large table is planned from a sample.
        assert!(
            (rows * 19 / 20..=rows * 21 / 20).contains(&planned.get(1)),
            "{} rows planned",
            planned.get::<_, i64>(1)
        );
        let before: String = client.one("SELECT pg_current_wal_lsn()::text", &[]);
        let call = format!("CALL env_rotate('copy', 'value', '{new}', '{method}')");
        let rate = timed(&mut client, &format!("{method} alone"), rows, &call);
        let wal: i64 = client.one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::text::pg_lsn)::bigint", &[&before]);
        let planned = planned.get::<_, i64>(0);
        println!(
            "{method} alone: {:.0} % of the plain UPDATE; WAL {wal} bytes, planned {planned}",
            100.0 * rate / plain
        );
        assert!((wal / 3..wal * 3).contains(&planned), "the plan is not far off");
    }
    client.run("DROP TABLE copy");

    // With others. They use the new key by now, as an application does before its old values are rotated.
    let mut raised =
        with_writers(&fixture, rows, &new, "before", || thread::sleep(Duration::from_secs(idle_seconds as u64)));
    for (method, key_id) in [("rewrap", &new), ("reencrypt", &new)] {
        let call = format!("CALL env_rotate('load', 'value', '{key_id}', '{method}')");
        raised += with_writers(&fixture, rows, key_id, &format!("during {method}"), || {
            timed(&mut client, &format!("{method} with writers"), rows, &call);
        });
        let last =
            "SELECT state || ', ' || pass || ' passes, ' || rows_done || ' rows done, ' || kms_calls || ' KMS calls'
            FROM env_rotation ORDER BY run_id DESC LIMIT 1";
        let last = client.one::<String>(last, &[]);
        println!("{method} with writers: {last}");
        assert!(last.starts_with("done"), "it comes to an end while others write");
        check(&mut client, rows, raised, key_id);
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_rotation WHERE failures + not_envelopes > 0", &[]), 0);
}
