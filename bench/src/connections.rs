//! What a session pays before its first value, over TLS as in production: time, KMS calls, data keys, and memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use testkit::usage::Usage;
use testkit::{Client, Cluster, Emulator, FaultProxy, Fixture, Session as _, TlsFront};

use crate::measure::median;
use crate::plan::Plan;
use crate::table::{Table, count};

/// Connect at the same time.
const CLIENTS: usize = 4;
/// Times of a single connection; of many, each is measured once.
const SINGLE_REPETITIONS: usize = 15;
const CACHE_ENTRIES: usize = 1_024;

/// How a session comes by its data keys.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    NoValue,
    Alone,
    BrokerStarts,
    BrokerRuns,
}

impl Way {
    const ALL: [Self; 4] = [Self::NoValue, Self::Alone, Self::BrokerStarts, Self::BrokerRuns];

    fn name(self) -> &'static str {
        match self {
            Self::NoValue => "`SELECT 1`, no value",
            Self::Alone => "broker off",
            Self::BrokerStarts => "broker on, not running yet",
            Self::BrokerRuns => "broker on, running",
        }
    }

    /// Before the connections are made.
    fn prepare(self, fixture: &Fixture) {
        if self == Self::BrokerStarts && !fixture.cluster.brokers().is_empty() {
            fixture.cluster.stop_broker();
        }
    }

    fn setting(self) -> &'static str {
        if self == Self::Alone { "off" } else { "on" }
    }
}

pub fn measure(plan: &Plan) -> String {
    println!("connections");
    let fixture = over_tls();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    first_values(&fixture, plan, &value) + &memory(&fixture, &value)
}

/// A server that calls KMS over TLS, with the authorities of the system in its bundle.
fn over_tls() -> Fixture {
    let proxy = FaultProxy::start(Emulator::shared().address());
    let front = TlsFront::start(proxy.address());
    let builder = Cluster::builder().setting("max_connections", "250").environment("SSL_CERT_FILE", &front.bundle());
    let mut fixture = Fixture::with_broker_and(builder);
    fixture.cluster.set("envelope_pg.kms_endpoint_url", &front.url());
    fixture.proxy = proxy;
    fixture
}

fn first_values(fixture: &Fixture, plan: &Plan, value: &[u8]) -> String {
    let mut table = Table::new(&["connections", "", "connect to first value", "KMS calls", "data keys of 1 row each"]);
    fixture.cluster.sql("CREATE TABLE written (value bytea)");
    for &connections in &plan.connections {
        for way in Way::ALL {
            fixture.cluster.set("envelope_pg.broker", way.setting());
            let (mut times, mut calls) = (Vec::new(), 0);
            for _ in 0..if connections == 1 { SINGLE_REPETITIONS } else { 1 } {
                way.prepare(fixture);
                fixture.proxy.reset_counts();
                times.extend(connect(fixture, connections, |client| match way {
                    Way::NoValue => client.run("SELECT 1"),
                    _ => assert_eq!(client.decrypt(value), "a text"),
                }));
                calls = fixture.proxy.total_calls();
            }
            let data_keys = if way == Way::NoValue { 0 } else { data_keys_of(fixture, connections) };
            table.row(&[
                connections.to_string(),
                way.name().to_owned(),
                format!("{:.1} ms", median(&mut times)),
                calls.to_string(),
                data_keys.to_string(),
            ]);
        }
    }
    format!(
        "## Connections\n\nMedian time from connect to the first decrypted value, {CLIENTS} clients at a time. KMS is the emulator, over TLS, with a \
         bundle of the system's certificate authorities.\n\n{}",
        table.finish()
    )
}

/// Opens connections, which stay open, and returns the ms from connect to the first value of each.
fn connect(fixture: &Fixture, connections: usize, first: impl Fn(&mut Client) + Sync) -> Vec<f64> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..CLIENTS.min(connections) {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < connections {
                    let started = Instant::now();
                    let mut client = fixture.connect();
                    first(&mut client);
                    let took = started.elapsed().as_secs_f64() * 1e3;
                    done.lock().expect("nobody panics with it").push((client, took));
                }
            });
        }
    });
    done.into_inner().expect("nobody panics with it").into_iter().map(|(_, took)| took).collect()
}

/// How many data keys so many connections write under, a row each.
fn data_keys_of(fixture: &Fixture, connections: usize) -> i64 {
    fixture.cluster.sql("TRUNCATE written");
    connect(fixture, connections, |client| {
        let insert = "INSERT INTO written VALUES (env_encrypt('a text'::text, $1))";
        client.execute(insert, &[&fixture.key_id]).expect("the row is written");
    });
    fixture.connect().one("SELECT count(DISTINCT env_dek_id(value)) FROM written", &[])
}

fn memory(fixture: &Fixture, value: &[u8]) -> String {
    let mut table = Table::new(&["backend", "private memory", "threads"]);
    let mut row = |name: &str, usage: Usage| {
        table.row(&[name.to_owned(), format!("{} kB", count(usage.memory_kb as f64)), usage.threads.to_string()]);
    };
    for (name, broker, work) in [
        ("without the library", "on", Work::Nothing),
        ("library loaded", "on", Work::Load),
        ("after values, broker off", "off", Work::Values),
        ("after values, broker on", "on", Work::Values),
        ("full cache (1,024 data keys), broker off", "off", Work::FullCache),
        ("full cache (1,024 data keys), broker on", "on", Work::FullCache),
    ] {
        fixture.cluster.set("envelope_pg.broker", broker);
        let repetitions = if work == Work::FullCache { 3 } else { 9 };
        let mut usages: Vec<Usage> = (0..repetitions).map(|_| after(work, fixture, value)).collect();
        usages.sort_by_key(|usage| usage.memory_kb);
        row(name, usages[repetitions / 2]);
    }
    row("the broker itself, then", Usage::of(fixture.cluster.broker()));
    let library: String =
        fixture.connect().one("SELECT setting || '/envelope_pg.so' FROM pg_config WHERE name = 'PKGLIBDIR'", &[]);
    let library = std::fs::metadata(&library).map_or(0, |metadata| metadata.len());
    format!(
        "### Memory\n\n`RssAnon` of a backend, median. Under `shared_preload_libraries` what loading the library takes is shared with \
         the postmaster. The library's file has {:.1} MB.\n\n{}",
        library as f64 / 1e6,
        table.finish()
    )
}

/// What a backend has done before its memory is measured.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Nothing,
    Load,
    Values,
    FullCache,
}

fn after(work: Work, fixture: &Fixture, value: &[u8]) -> Usage {
    let mut client = fixture.connect();
    match work {
        Work::Nothing => client.run("SELECT 1"),
        Work::Load => client.run("SELECT env_is_envelope('')"),
        Work::Values => (0..3).for_each(|_| {
            assert_eq!(client.decrypt(value), "a text");
            client.encrypt("a text", &fixture.key_id);
        }),
        Work::FullCache => {
            let fill = format!(
                "SELECT count(env_encrypt('x', $1, jsonb_build_object('n', n::text))) FROM generate_series(1, {CACHE_ENTRIES}) AS n"
            );
            let filled: i64 = client.one(&fill, &[&fixture.key_id]);
            assert_eq!(filled, CACHE_ENTRIES as i64);
        }
    }
    Usage::of(client.backend())
}
