//! More data keys than fit: what is dropped, and who is told.

use testkit::{Client, Cluster, Fixture, Session, wait_until};

const ENCRYPT: &str = "SELECT count(env_encrypt('x', $1, jsonb_build_object('tenant', n::text)))
    FROM generate_series(1, $2::int) AS n";

fn encrypt(client: &mut Client, fixture: &Fixture, tenants: i32) {
    let written: i64 = client.query_one(ENCRYPT, &[&fixture.key_id, &tenants]).expect("values").get(0);
    assert_eq!(written, i64::from(tenants));
}

/// Hits, misses, evictions, and misses of what was evicted.
fn broker(client: &mut Client) -> (i64, i64, i64, i64, i64) {
    let row = client.query_one(
        "SELECT cache_hits, cache_misses, evictions, evicted_needed, data_key_bytes FROM env_stat_broker",
        &[],
    );
    let row = row.expect("a broker");
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

#[test]
fn a_broker_that_has_too_little_memory_says_so() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.broker_memory", "1MB"));
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_entries = 10");
    encrypt(&mut client, &fixture, 300);
    let (_, misses, evictions, needed, bytes) = broker(&mut client);
    assert_eq!((misses, evictions, needed), (300, 0, 0), "they fit");
    assert!((1..1 << 20).contains(&bytes), "{bytes}");
    encrypt(&mut client, &fixture, 300);
    assert_eq!(fixture.kms_calls(), (300, 0), "and need no call again");
    encrypt(&mut client, &fixture, 900);
    encrypt(&mut client, &fixture, 900);
    let (hits, _, evictions, needed, bytes) = broker(&mut client);
    assert!(hits > 300 && evictions > 100 && needed > 50, "{hits} {evictions} {needed}");
    assert!(bytes <= 1 << 20, "{bytes}");
    let (generated, unwrapped) = fixture.kms_calls();
    assert!(generated + unwrapped < 1_700, "a part of a cycle that does not fit is found: {generated} {unwrapped}");
    wait_until("a line in the log", || !fixture.cluster.log_lines("envelope_pg.broker_memory is full").is_empty());
    fixture.cluster.set("envelope_pg.broker_memory", "64MB");
    fixture.cluster.reload();
    wait_until("the new setting", || {
        encrypt(&mut client, &fixture, 900);
        let before = fixture.kms_calls();
        encrypt(&mut client, &fixture, 900);
        fixture.kms_calls() == before
    });
}

#[test]
fn a_session_counts_what_it_drops() {
    let fixture = Fixture::local();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_memory = '1MB'");
    let counts = "SELECT DISTINCT cache_hits, cache_misses, cache_evictions, cache_evicted_needed FROM env_stat_cache
        WHERE purpose = 'encrypt'";
    encrypt(&mut client, &fixture, 100);
    encrypt(&mut client, &fixture, 100);
    let row = client.query_one(counts, &[]).expect("one row");
    assert_eq!([0, 1, 2, 3].map(|column| row.get::<_, i64>(column)), [100, 100, 0, 0]);
    for _ in 0..3 {
        encrypt(&mut client, &fixture, 600);
    }
    let row = client.query_one(counts, &[]).expect("one row");
    let [hits, misses, evictions, needed] = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
    assert!(
        hits + misses == 2_000 && hits > 300 && evictions > 100 && needed > 50,
        "{hits} {misses} {evictions} {needed}"
    );
    assert!(client.one::<i64>("SELECT count(*) FROM env_stat_cache WHERE purpose = 'encrypt'", &[]) < 500);
    client.run("SET envelope_pg.cache_entries = 10");
    for _ in 0..6 {
        encrypt(&mut client, &fixture, 600);
    }
    assert!(!fixture.cluster.log_lines("envelope_pg.cache_memory").is_empty(), "{}", fixture.cluster.log());
}

/// What has happened in all sessions: also in those that have ended, and in those that go on.
#[test]
fn a_server_counts_what_its_sessions_drop() {
    let fixture = Fixture::local();
    let counts = |client: &mut Client| -> ([i64; 4], f64) {
        let row = client.query_one(
            "SELECT cache_hits, cache_misses, cache_evictions, cache_evicted_needed, fullest_cache FROM env_stat_server",
            &[],
        );
        let row = row.expect("one row");
        ([0, 1, 2, 3].map(|column| row.get(column)), row.get(4))
    };
    let mut monitor = fixture.connect_as("monitor", &["pg_monitor"]);
    assert_eq!(counts(&mut monitor), ([0; 4], 0.0));
    let mut client = fixture.connect();
    encrypt(&mut client, &fixture, 50);
    encrypt(&mut client, &fixture, 50);
    drop(client);
    wait_until("the counts of one that has ended", || counts(&mut monitor).0 == [50, 50, 0, 0]);
    let (_, fullest) = counts(&mut monitor);
    assert!(fullest > 0.0 && fullest < 0.1, "{fullest}");
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_entries = 10");
    encrypt(&mut client, &fixture, 40);
    encrypt(&mut client, &fixture, 40);
    // Within about a second, at the end of a transaction.
    wait_until("the counts of one that goes on", || {
        client.run("SELECT");
        counts(&mut monitor).0[1] >= 90
    });
    let ([hits, misses, evictions, needed], fullest) = counts(&mut monitor);
    assert_eq!(hits + misses, 180);
    assert!(evictions >= 30 && needed > 0, "{hits} {misses} {evictions} {needed}");
    assert!((fullest - 1.0).abs() < 1e-9, "{fullest}");
    fixture.cluster.restart();
    let mut monitor = fixture.connect_as("monitor", &["pg_monitor"]);
    assert_eq!(counts(&mut monitor), ([0; 4], 0.0), "they are those of one run of the server");
}
