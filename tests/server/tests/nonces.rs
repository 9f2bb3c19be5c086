//! Nonces: no two values of a data key share one, over sessions, restarts and parallel workers; and what they do share.

use std::collections::{BTreeMap, HashSet};
use std::thread;

use testkit::{Client, Fixture, Session};

const NONCE_BYTES: usize = 24;
const PREFIX_BYTES: usize = 12;

testkit::shared_fixture!(Fixture::with_broker());

/// The nonce of a value without encryption context (docs/FORMAT.md, section 3).
fn nonce(value: &[u8]) -> [u8; NONCE_BYTES] {
    let wrapped_keys = usize::from(u16::from_be_bytes([value[40], value[41]]));
    value[42 + wrapped_keys..][..NONCE_BYTES].try_into().unwrap()
}

fn nonces(client: &mut Client, query: &str, key_id: &str) -> Vec<[u8; NONCE_BYTES]> {
    client.query(query, &[&key_id]).unwrap().iter().map(|row| nonce(row.get(0))).collect()
}

fn prefixes(nonces: &[[u8; NONCE_BYTES]]) -> HashSet<&[u8]> {
    nonces.iter().map(|nonce| &nonce[..PREFIX_BYTES]).collect()
}

const MANY: &str = "SELECT env_encrypt('row ' || id, $1) FROM generate_series(1, 5000) AS id";

#[test]
fn no_nonce_serves_twice() {
    let fixture = fixture();
    let key_id = fixture.key_id.as_str();
    let mut all = Vec::new();
    for _ in 0..2 {
        // Together, so that they have one data key.
        let clients: Vec<_> = (0..4).map(|_| fixture.connect()).collect();
        thread::scope(|scope| {
            let sessions: Vec<_> = clients
                .into_iter()
                .map(|mut client| {
                    scope.spawn(move || {
                        let mut own = nonces(&mut client, MANY, key_id);
                        // One value a statement, and in a subtransaction that is undone.
                        for _ in 0..50 {
                            own.extend(nonces(&mut client, "SELECT env_encrypt('one', $1)", key_id));
                        }
                        client.run("BEGIN; SAVEPOINT before");
                        own.extend(nonces(&mut client, MANY, key_id));
                        client.run("ROLLBACK TO before");
                        own.extend(nonces(&mut client, MANY, key_id));
                        client.run("COMMIT");
                        own
                    })
                })
                .collect();
            for session in sessions {
                let own = session.join().unwrap();
                assert_eq!(prefixes(&own).len(), 1, "a session keeps its prefix");
                all.extend(own);
            }
        });
        fixture.cluster.restart();
    }
    let mut client = fixture.connect();
    client.run(
        "CREATE TABLE plain AS SELECT id FROM generate_series(1, 20000) AS id; ANALYZE plain;
         SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET max_parallel_workers_per_gather = 2;
         -- The first name is that before 16.
         SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
    );
    let query = "SELECT env_encrypt('row ' || id, $1) FROM plain";
    let plan: String = client.query(&format!("EXPLAIN {}", query.replace("$1", "'x'")), &[]).unwrap()[0].get(0);
    assert!(plan.contains("Gather"), "{plan}");
    let in_parallel = nonces(&mut client, query, key_id);
    all.extend(in_parallel);
    let expected = 2 * 4 * (3 * 5_000 + 50) + 20_000;
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (expected, expected), "nonces are distinct");
    let seconds: HashSet<_> = all.iter().map(|nonce| &nonce[PREFIX_BYTES..]).collect();
    assert_eq!(seconds.len(), expected, "and so are their second halves by themselves");
}

#[test]
fn a_batch_is_of_one_session_and_data_key_and_of_65536_values() {
    let fixture = fixture();
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let key_id = &fixture.key_id;
    let prefix_of = |client: &mut Client| {
        let nonces = nonces(client, "SELECT env_encrypt('x', $1)", key_id);
        nonces[0][..PREFIX_BYTES].to_vec()
    };
    let (first, second) = (prefix_of(&mut one), prefix_of(&mut other));
    assert_ne!(first, second, "another session");
    assert_eq!(prefix_of(&mut one), first, "the same session in another statement");
    one.query("SELECT env_rotate_dek($1)", &[key_id]).unwrap();
    assert_ne!(prefix_of(&mut one), first, "another data key");
    one.run("SELECT env_cache_flush()");
    let mut batches: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let query = "SELECT env_encrypt('x', $1) FROM generate_series(1, 140000)";
    for nonce in nonces(&mut one, query, key_id) {
        *batches.entry(nonce[..PREFIX_BYTES].to_vec()).or_default() += 1;
    }
    let mut sizes: Vec<_> = batches.into_values().collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [140_000 - 2 * 65_536, 65_536, 65_536]);
}
