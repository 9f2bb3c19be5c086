//! What the broker saves, in figures. Not part of the tests:
//! `cargo test -p server_tests --test broker_measure -- --ignored --nocapture --test-threads 1`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use server_tests::usage::Usage;
use server_tests::{Client, Cluster, Emulator, Fault, FaultProxy, Fixture, Session, TlsFront};

/// Connect at the same time.
const CLIENTS: usize = 4;
const KMS_LATENCY: Duration = Duration::from_millis(20);

/// The part of the sorted times below which so many percent of them are.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e3
}

/// A server that calls KMS over TLS, with the authorities of the system in its bundle, as in production.
fn over_tls() -> Fixture {
    let proxy = FaultProxy::start(Emulator::shared().address());
    let front = TlsFront::start(proxy.address());
    let builder = Cluster::builder().setting("max_connections", "250").environment("SSL_CERT_FILE", &front.bundle());
    let mut fixture = Fixture::with_broker_and(builder);
    fixture.cluster.set("envelope_pg.kms_endpoint_url", &front.url());
    fixture.proxy = proxy;
    fixture
}

/// Opens connections, which stay open, and takes the time from connect to the first value of each.
fn first_values(fixture: &Fixture, connections: usize, first: impl Fn(&mut Client) + Sync) -> Vec<Duration> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS.min(connections) {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < connections {
                    let started = Instant::now();
                    let mut client = fixture.connect();
                    first(&mut client);
                    let took = started.elapsed();
                    done.lock().expect("nobody panics with it").push((client, took));
                }
            });
        }
    });
    done.into_inner().expect("nobody panics with it").into_iter().map(|(_, took)| took).collect()
}

#[test]
#[ignore = "a measurement"]
fn connections_over_tls() {
    let fixture = over_tls();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.cluster.sql("CREATE TABLE written (value bytea)");
    println!("| connections | broker | KMS calls | data keys | connect to first value, ms: median | p95 | all |");
    println!("|---|---|---|---|---|---|---|");
    for connections in [1, 10, 200] {
        for mode in ["none", "off", "on, cold", "on, warm"] {
            fixture.cluster.set("envelope_pg.broker", if mode.starts_with("on") { "on" } else { "off" });
            if mode == "on, cold" && !fixture.cluster.brokers().is_empty() {
                fixture.cluster.stop_broker();
            }
            // One connection is measured again and again; many are enough for a median.
            let (mut times, mut calls, mut deks, mut all) = (Vec::new(), 0, 0_i64, Duration::ZERO);
            for _ in 0..if connections == 1 { 15 } else { 1 } {
                if mode == "on, cold" && !fixture.cluster.brokers().is_empty() {
                    fixture.cluster.stop_broker();
                }
                fixture.cluster.sql("TRUNCATE written");
                fixture.proxy.reset_counts();
                let started = Instant::now();
                times.extend(first_values(&fixture, connections, |client| match mode {
                    "none" => client.run("SELECT 1"),
                    _ => assert_eq!(client.decrypt(&value), "a text"),
                }));
                all = started.elapsed();
                calls = fixture.proxy.total_calls();
            }
            if mode != "none" {
                first_values(&fixture, connections, |client| {
                    let insert = "INSERT INTO written VALUES (env_encrypt('a text'::text, $1))";
                    client.execute(insert, &[&fixture.key_id]).expect("the row is written");
                });
                deks = fixture.connect().one("SELECT count(DISTINCT env_dek_id(value)) FROM written", &[]);
            }
            println!(
                "| {connections} | {mode} | {calls} | {deks} | {:.1} | {:.1} | {:.0} |",
                percentile(&mut times, 50),
                percentile(&mut times, 95),
                all.as_secs_f64() * 1e3
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn private_memory() {
    let fixture = over_tls();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    println!("| backend | private memory, kB (median of 9) | threads |");
    println!("|---|---|---|");
    for mode in ["without the library", "library loaded", "broker off", "broker on"] {
        fixture.cluster.set("envelope_pg.broker", if mode == "broker off" { "off" } else { "on" });
        let mut usages: Vec<Usage> = (0..9)
            .map(|_| {
                let mut client = fixture.connect();
                match mode {
                    "without the library" => client.run("SELECT 1"),
                    "library loaded" => client.run("SELECT env_is_envelope('')"),
                    _ => (0..3).for_each(|_| {
                        assert_eq!(client.decrypt(&value), "a text");
                        client.encrypt("a text", &fixture.key_id);
                    }),
                }
                Usage::of(client.backend())
            })
            .collect();
        usages.sort_by_key(|usage| usage.memory_kb);
        println!("| {mode} | {} | {} |", usages[4].memory_kb, usages[4].threads);
    }
    let broker = Usage::of(fixture.cluster.broker());
    println!("| the broker itself | {} | {} |", broker.memory_kb, broker.threads);
}

/// Reads the rows under many data keys in all ways. `rows` is in what order they lie in the table.
fn cold_scan(fixture: &Fixture, title: &str, order: &str, cache_entries: &str) {
    let mut writer = fixture.connect();
    fixture.proxy.clear();
    writer.run("DROP TABLE IF EXISTS scanned; CREATE TABLE scanned (id int, value bytea)");
    let insert = format!(
        "INSERT INTO scanned SELECT id, env_encrypt('row ' || id, $1, jsonb_build_object('n', (id % 2000)::text))
         FROM generate_series(1, 10000) AS id ORDER BY {order}"
    );
    writer.execute(&insert, &[&fixture.key_id]).expect("the rows are written");
    writer.run("ANALYZE scanned");
    assert_eq!(writer.one::<i64>("SELECT count(DISTINCT env_dek_id(value)) FROM scanned", &[]), 2_000);
    fixture.proxy.set(Fault::Delay(KMS_LATENCY));
    println!("| {title}, cache_entries {cache_entries} | s | KMS calls |");
    println!("|---|---|---|");
    const READ: &str = "SELECT count(*) FROM scanned WHERE env_decrypt(value) = 'row ' || id";
    const WARM: &str = "SELECT env_warm('scanned', 'value')";
    let connect = |settings: &str| {
        let mut client = fixture.connect();
        client.run(&format!("SET envelope_pg.cache_entries = {cache_entries}; {settings}"));
        client
    };
    let measure = |what: &str, client: &mut Client, query: &str| {
        fixture.proxy.reset_counts();
        let started = Instant::now();
        client.query(query, &[]).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        println!("| {what} | {:.2} | {} |", started.elapsed().as_secs_f64(), fixture.proxy.total_calls());
    };
    // Not only what the broker has, but also in what order it was asked for.
    let forget_all = || fixture.cluster.stop_broker();
    const OFF: &str = "SET envelope_pg.broker = off;";
    const PARALLEL: &str = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 4;";
    measure("serial, broker off", &mut connect(OFF), READ);
    let mut client = connect(OFF);
    measure("env_warm, broker off", &mut client, WARM);
    measure("... and then the scan", &mut client, READ);
    measure("parallel query, 4 workers, broker off", &mut connect(&format!("{OFF} {PARALLEL}")), READ);
    forget_all();
    measure("serial, broker on, the first session", &mut connect(""), READ);
    measure("serial, broker on, a second session", &mut connect(""), READ);
    fixture.connect().run("SELECT env_cache_flush(true)");
    measure("serial, broker on, after a flush, in an order that was seen before", &mut connect(""), READ);
    forget_all();
    let mut client = connect("");
    measure("env_warm, broker on", &mut client, WARM);
    measure("... and then the scan", &mut client, READ);
    measure("... and the scan of another session", &mut connect(""), READ);
    forget_all();
    measure("parallel query, 4 workers, broker on", &mut connect(PARALLEL), READ);
}

#[test]
#[ignore = "a measurement"]
fn a_cold_scan() {
    let fixture = Fixture::with_broker();
    println!("10,000 rows under 2,000 data keys, KMS with {} ms", KMS_LATENCY.as_millis());
    cold_scan(&fixture, "rows of a data key together", "id % 2000", "1024");
    cold_scan(&fixture, "rows in random order", "md5(id::text)", "4000");
}
