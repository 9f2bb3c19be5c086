//! Under shared_preload_libraries the postmaster loads the library and backends fork from it: no two nonces may repeat.

use std::collections::HashSet;
use std::thread;

use testkit::{Client, Cluster, Fixture, Session};

const VALUES: usize = 5_000;
const BACKENDS: usize = 4;

/// The nonces and the data key ids of many values of one session.
fn nonces_and_dek(client: &mut Client, key_id: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
    client.run("CREATE TEMP TABLE made (value bytea)");
    let insert = format!("INSERT INTO made SELECT env_encrypt('a text', $1) FROM generate_series(1, {VALUES})");
    client.execute(&insert, &[&key_id]).expect("the values are made");
    assert_eq!(client.one::<i64>("SELECT count(env_decrypt(value)) FROM made", &[]), VALUES as i64);
    let dek = client.one("SELECT env_dek_id(value) FROM made LIMIT 1", &[]);
    (client.column("SELECT (env_inspect(value)).nonce FROM made"), dek)
}

/// Makes values in several backends at the same time, and demands that all nonces and data keys differ.
fn all_differ(fixture: &Fixture) {
    let sessions: Vec<_> = (0..BACKENDS)
        .map(|_| {
            let (mut client, key_id) = (fixture.connect(), fixture.key_id.clone());
            thread::spawn(move || nonces_and_dek(&mut client, &key_id))
        })
        .collect();
    let made: Vec<_> = sessions.into_iter().map(|session| session.join().expect("the session works")).collect();
    let deks: HashSet<_> = made.iter().map(|(_, dek)| dek).collect();
    assert_eq!(deks.len(), BACKENDS);
    let nonces: HashSet<_> = made.iter().flat_map(|(nonces, _)| nonces).collect();
    assert_eq!(nonces.len(), BACKENDS * VALUES);
    assert!(nonces.iter().all(|nonce| nonce.len() == 24));
    // A counter with a random start would differ, too: the first bytes of what is a value's own must do so already.
    let starts: HashSet<_> = nonces.iter().map(|nonce| &nonce[12..20]).collect();
    assert!(starts.len() >= nonces.len() - 1);
    // The prefix is that of a session and its data key.
    let prefixes: HashSet<_> = nonces.iter().map(|nonce| &nonce[..12]).collect();
    assert_eq!(prefixes.len(), BACKENDS);
}

fn preloaded() -> testkit::ClusterBuilder {
    Cluster::builder().setting("shared_preload_libraries", "envelope_pg")
}

#[test]
fn preloaded_backends_have_nonces_and_data_keys_of_their_own() {
    let fixture = Fixture::local_with(preloaded());
    all_differ(&fixture);
    fixture.cluster.restart();
    all_differ(&fixture);
}

#[test]
fn without_preload_it_is_the_same() {
    let fixture = Fixture::local();
    assert_eq!(fixture.connect().one::<String>("SHOW shared_preload_libraries", &[]), "");
    all_differ(&fixture);
}

#[test]
fn a_preloaded_postmaster_stays_without_threads_and_children_reach_kms() {
    let fixture = Fixture::kms_with(preloaded());
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!((fixture.proxy.calls("GenerateDataKey"), fixture.proxy.calls("Decrypt")), (1, 1));
    let threads = std::fs::read_dir(format!("/proc/{}/task", fixture.cluster.pid())).expect("it runs").count();
    assert_eq!(threads, 1, "the postmaster starts no thread");
    // Settings of the configuration file are checked when the server starts.
    let mut client = fixture.connect();
    assert_eq!(client.one::<String>("SHOW envelope_pg.kms_endpoint_url", &[]), fixture.proxy.url());
    assert!(!fixture.cluster.log().contains("unrecognized configuration parameter"));
    // 14 takes any name.
    if client.one::<bool>("SELECT current_setting('server_version_num')::int >= 150000", &[]) {
        client.fail("SET envelope_pg.no_such_setting = 1", &[]);
    }
}
