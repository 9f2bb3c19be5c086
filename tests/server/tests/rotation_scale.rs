//! Rotation and inventory of much: a slow KMS and many data keys, thousands of partitions, thousands of tables, many rows. Prints what it
//! took; `PARTITIONS`, `TABLES`, `ROWS`
//! and `ROWS_EACH` (of a data key) make it larger.

use std::env;
use std::time::{Duration, Instant};

use server_tests::rotation::{intact, number_of, rotate, table};
use testkit::{Client, Cluster, Fault, Fixture, Session};

fn from_environment(name: &str, default: i32) -> i32 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Runs a statement, and says how long it took.
fn timed(client: &mut Client, statement: &str) -> Duration {
    let started = Instant::now();
    client.run(statement);
    started.elapsed()
}

#[test]
fn a_slow_kms_is_asked_for_many_data_keys_at_a_time() {
    const DATA_KEYS: i32 = 160;
    const LATENCY: Duration = Duration::from_millis(300);
    let fixture = Fixture::kms();
    // In the order in which they were made, as rows of one time mostly lie together: a block has values of one or two of them.
    let each = from_environment("ROWS_EACH", 100);
    table(&fixture, "slow", DATA_KEYS * each, each);
    fixture.connect().run("DROP TRIGGER log ON slow");
    let keys = [fixture.new_key().arn, fixture.new_key().arn];
    for (method, operation) in [("rewrap", "ReEncrypt"), ("reencrypt", "Decrypt")] {
        let rotate_to = |to_key: &str| {
            fixture.proxy.reset_counts();
            fixture.connect().run("VACUUM slow");
            // A session that has none of the data keys.
            let mut client = fixture.connect();
            let elapsed = timed(&mut client, &rotate("slow", to_key, &format!(", '{method}'")));
            assert_eq!(number_of(&mut client, "slow", "rows_done"), i64::from(DATA_KEYS * each));
            elapsed
        };
        let quick = if method == "rewrap" { rotate_to(&keys[0]) } else { Duration::ZERO };
        fixture.proxy.set(Fault::Delay(LATENCY));
        let slow = rotate_to(&keys[1]);
        fixture.proxy.clear();
        println!("{method} of {DATA_KEYS} data keys: {quick:?}; KMS with {LATENCY:?} a call: {slow:?}");
        assert_eq!(fixture.proxy.calls(operation), DATA_KEYS as usize);
        assert!(slow - quick < LATENCY * DATA_KEYS as u32 / 4, "one after the other it takes 48 s more");
    }
    fixture.proxy.clear();
    assert_eq!(intact(&mut fixture.connect(), "slow"), i64::from(DATA_KEYS * each));
}

#[test]
fn thousands_of_partitions_take_no_longer_each_than_some() {
    // For DROP TABLE.
    let fixture = Fixture::local_with(Cluster::builder().setting("max_locks_per_transaction", "1000"));
    let mut client = fixture.connect();
    client.run("SELECT env_local_create_key('new')");
    let many = from_environment("PARTITIONS", 400);
    let mut each = Vec::new();
    for partitions in [many / 4, many] {
        client.run("CREATE TABLE visit (id int, value bytea) PARTITION BY LIST (id)");
        for i in 1..=partitions {
            client.run(&format!("CREATE TABLE visit_{i} PARTITION OF visit FOR VALUES IN ({i})"));
        }
        client.run(&format!(
            "INSERT INTO visit SELECT i, env_encrypt('text', 'local:dev') FROM generate_series(1, {partitions}) AS i"
        ));
        let elapsed = timed(&mut client, "CALL env_rotate('visit', 'value', 'local:new')");
        println!("{partitions} partitions, two passes: {elapsed:?}");
        each.push(elapsed / partitions as u32);
        let left = "SELECT count(*) FROM visit WHERE env_key_id(value) <> 'local:new'";
        assert_eq!(client.one::<i64>(left, &[]), 0);
        client.run("DROP TABLE visit");
    }
    // If the tree were walked for each of them it would be four times as long.
    assert!(each[1] < each[0] * 3, "{each:?}");
}

#[test]
fn an_inventory_is_not_slower_than_decrypting() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    let (rows, tables) = (from_environment("ROWS", 100_000), from_environment("TABLES", 300));
    client.run(&format!(
        "SET max_parallel_workers_per_gather = 0; SET jit = off;
         CREATE TABLE much (value bytea);
         INSERT INTO much SELECT env_encrypt('text ' || i, 'local:dev') FROM generate_series(1, {rows}) AS i"
    ));
    client.run("VACUUM ANALYZE much");
    let mut ratios: Vec<f64> = (0..5)
        .map(|_| {
            let decrypting = timed(&mut client, "SELECT count(env_decrypt(value)) FROM much");
            let inventory = timed(&mut client, "SELECT * FROM env_inventory('public')");
            println!("{rows} rows: inventory {inventory:?}, decrypting {decrypting:?}");
            inventory.as_secs_f64() / decrypting.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("inventory against decrypting, median of 5 pairs: {:.2}", ratios[2]);
    assert!(ratios[2] < 1.5, "{ratios:?}");
    for i in 1..=tables {
        client.run(&format!("CREATE TABLE t{i} (value bytea); INSERT INTO t{i} SELECT value FROM much LIMIT 10"));
    }
    println!("inventory of {tables} more tables: {:?}", timed(&mut client, "SELECT * FROM env_inventory('public')"));
    println!("env_key_usage: {:?}", timed(&mut client, "SELECT * FROM env_key_usage('local:unused')"));
    let counted: i64 = client.one("SELECT count(*) FROM env_inventory('public') WHERE rows = 10", &[]);
    assert_eq!(counted, i64::from(tables));
}
