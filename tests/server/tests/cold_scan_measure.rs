//! What the broker and reading ahead save a cold scan, and how many KMS calls many tenants cost, in figures. Not part of the tests:
//! `cargo test -p server_tests --test cold_scan_measure -- --ignored --nocapture --test-threads 1`.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Fault, Fixture, Session};

const KMS_LATENCY: Duration = Duration::from_millis(20);

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

/// `TENANTS=100000` says how many; it takes a quarter of KMS's time for each, and the emulator's.
#[test]
#[ignore = "a measurement"]
fn tenants_written_in_random_order_by_four_sessions() {
    let tenants: i64 = std::env::var("TENANTS").map_or(2_000, |tenants| tenants.parse().expect("a number"));
    let fixture = Fixture::with_broker();
    fixture.connect().run("CREATE TABLE written (value bytea)");
    fixture.proxy.set(Fault::Delay(KMS_LATENCY));
    let write = format!(
        "INSERT INTO written SELECT env_encrypt('a value', $1, jsonb_build_object('tenant', i::text))
         FROM (SELECT i FROM generate_series(1, {tenants}) AS i ORDER BY random()) AS tenants"
    );
    for round in ["cold", "each tenant has its data key"] {
        fixture.proxy.reset_counts();
        let started = Instant::now();
        thread::scope(|scope| {
            for mut client in (0..4).map(|_| fixture.connect()) {
                let (write, key_id) = (&write, &fixture.key_id);
                scope.spawn(move || client.execute(write, &[key_id]).expect("the rows are written"));
            }
        });
        let (seconds, calls) = (started.elapsed().as_secs_f64(), fixture.proxy.total_calls());
        println!(
            "{round}: {:.0} writes/s, {calls} KMS calls for {tenants} tenants, {:.3} each",
            4.0 * tenants as f64 / seconds,
            calls as f64 / tenants as f64,
        );
    }
    fixture.proxy.reset_counts();
    let keys: i64 = fixture.connect().one("SELECT count(DISTINCT env_dek_id(value)) FROM written", &[]);
    fixture.connect().one::<i64>("SELECT count(env_decrypt(value)) FROM written", &[]);
    println!("read in a new session: {} KMS calls for {keys} data keys", fixture.proxy.total_calls());
}
