//! What the shipped library has in the memory of a live backend and a live broker: looked for from outside, as root may.

#[path = "../../../crates/envelope_core/tests/common/secrets.rs"]
mod secrets;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use secrets::secrets;
use serde_json::json;
use testkit::{Client, Cluster, Emulator, Fixture, Session, wait_until};

/// Values are short, so that the key stream of one is longer than what is looked for.
const PLAINTEXT: &str = "a plaintext of some thirty bytes";
/// What may be there while a data key is in use: K, in the form that the cipher wants, and what belongs to single messages.
const IN_USE: &[&str] = &[
    "K",
    "a round key of K",
    "a round key of the message key",
    "the hash key",
    "the mask of the tag",
    "the key stream",
];

/// What is looked for: all about a value and its data key, and what KMS has answered.
struct Search {
    needles: Vec<(&'static str, Vec<u8>)>,
}

impl Search {
    /// `session` is of another server: what it is told would be found.
    fn of(value: &[u8], session: &mut Client) -> Self {
        let wrapped: String =
            session.one("SELECT translate(encode((env_inspect($1)).wrapped_dek, 'base64'), E'\\n', '')", &[&value]);
        let input = json!({ "CiphertextBlob": wrapped, "EncryptionContext": { "envelope_pg": "v1" } });
        let answer = Emulator::shared().call("Decrypt", &input).expect("the emulator opens its own");
        let base64 = answer["Plaintext"].as_str().expect("Decrypt answers with it").to_owned();
        let dek: Vec<u8> = session.one("SELECT decode($1, 'base64')", &[&base64]);
        let nonce = &value[value.len() - 16 - PLAINTEXT.len() - 24..][..24];
        let mut needles = secrets(&dek, nonce);
        needles.push(("the data key in base64", base64.into_bytes()[..40].to_vec()));
        Self { needles }
    }

    /// What a process has in its private memory, and how often.
    fn in_process(&self, pid: i32) -> BTreeMap<&'static str, usize> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root reads it");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root reads it");
        let mut found = BTreeMap::new();
        let mut starts = vec![false; 1 << 16];
        for (_, needle) in &self.needles {
            starts[usize::from(needle[0]) << 8 | usize::from(needle[1])] = true;
        }
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (range, _) = line.split_once(' ').expect("a line of maps has a range");
            let (from, to) = range.split_once('-').expect("a range has two ends");
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("hexadecimal"));
            let mut bytes = vec![0; usize::try_from(to - from).expect("an address space fits")];
            if memory.read_exact_at(&mut bytes, from).is_err() {
                continue;
            }
            // One look at each byte but for those that a needle begins with.
            for at in 0..bytes.len().saturating_sub(15) {
                if starts[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])] {
                    for (name, _) in self.needles.iter().filter(|(_, needle)| bytes[at..].starts_with(needle)) {
                        *found.entry(*name).or_default() += 1;
                    }
                }
            }
        }
        found
    }

    fn is_clean(&self, pid: i32) -> bool {
        self.in_process(pid).is_empty()
    }
}

/// Values are written, read, read in vain, and the data key is refreshed in the middle.
fn use_much(fixture: &Fixture, writer: &mut Client, reader: &mut Client) -> Vec<u8> {
    let value = writer.encrypt(PLAINTEXT, &fixture.key_id);
    for _ in 0..3 {
        writer.run("SELECT env_cache_flush()");
        assert_eq!(writer.decrypt(&value), PLAINTEXT);
        assert_eq!(reader.decrypt(&value), PLAINTEXT);
    }
    let mut damaged = value.clone();
    *damaged.last_mut().expect("a value has bytes") ^= 1;
    reader.fail_to_decrypt(&damaged).with("22000");
    assert_eq!(reader.decrypt(&value), PLAINTEXT);
    value
}

#[test]
fn a_backend_has_one_k_and_after_a_flush_nothing() {
    let elsewhere = Fixture::local();
    for with_broker in [true, false] {
        let fixture = if with_broker { Fixture::with_broker() } else { Fixture::kms() };
        let (mut writer, mut reader) = (fixture.connect(), fixture.connect());
        let value = use_much(&fixture, &mut writer, &mut reader);
        let search = Search::of(&value, &mut elsewhere.connect());
        let pids = [writer.backend(), reader.backend()];
        for pid in pids {
            let found = search.in_process(pid);
            println!("with broker {with_broker}: {found:?}");
            assert_eq!(found.get("K"), Some(&1), "{found:?}");
            // Fifteen, the first two of which are K.
            assert_eq!(found.get("a round key of K"), Some(&15), "{found:?}");
            let others: Vec<_> = found.keys().filter(|name| !IN_USE.contains(name)).collect();
            assert!(others.is_empty(), "{found:?}");
        }
        if with_broker {
            let found = search.in_process(fixture.cluster.broker());
            println!("the broker: {found:?}");
            // 32 bytes, looked for in halves.
            assert_eq!(found, BTreeMap::from([("the data key", 2)]), "one copy, and no other form of it");
        }
        reader.run("SELECT env_cache_flush(true)");
        let found = search.in_process(pids[1]);
        assert!(found.is_empty(), "{found:?}");
        // The other one is idle.
        wait_until("the idle backend has heeded the flush", || search.is_clean(pids[0]));
        if with_broker {
            wait_until("the broker has heeded the flush", || search.is_clean(fixture.cluster.broker()));
        }
        assert_eq!(writer.decrypt(&value), PLAINTEXT, "it goes on");
    }
}

#[test]
fn an_idle_backend_wipes_what_is_of_no_more_use() {
    let elsewhere = Fixture::local();
    let settings = [("envelope_pg.cache_ttl", "8s"), ("envelope_pg.stale_if_unreachable", "0")];
    for with_broker in [true, false] {
        let builder =
            settings.into_iter().fold(Cluster::builder(), |builder, (name, value)| builder.setting(name, value));
        let fixture = if with_broker { Fixture::with_broker_and(builder) } else { Fixture::kms_with(builder) };
        let mut client = fixture.connect();
        let value = client.encrypt(PLAINTEXT, &fixture.key_id);
        let (search, pid) = (Search::of(&value, &mut elsewhere.connect()), client.backend());
        assert_eq!(client.decrypt(&value), PLAINTEXT);
        // An error disables PostgreSQL's timeouts.
        client.fail("SELECT 1 / 0", &[]).with("22012");
        assert_eq!(search.in_process(pid).get("K"), Some(&1), "else this could not fail");
        wait_until("the idle backend has wiped it", || search.is_clean(pid));
        assert_eq!(client.decrypt(&value), PLAINTEXT, "it goes on");
        // In a transaction it is wiped when that ends.
        client.run("BEGIN");
        assert_eq!(client.decrypt(&value), PLAINTEXT);
        std::thread::sleep(Duration::from_millis(10_000));
        client.run("COMMIT");
        assert!(search.is_clean(pid), "{:?}", search.in_process(pid));
    }
}

/// An idle backend with nothing to wipe is left alone: no transactions of ours in the statistics of the database.
#[test]
fn an_idle_backend_is_not_woken_for_nothing() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    client.encrypt(PLAINTEXT, &fixture.key_id);
    let voluntary = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("Linux says it");
        line.trim().parse::<u64>().expect("a number")
    };
    let pid = client.backend();
    let before = voluntary(pid);
    std::thread::sleep(Duration::from_millis(4_000));
    let wakes = voluntary(pid) - before;
    println!("{wakes} wakes in 4 s");
    assert!(wakes <= 8, "a look a second: {wakes}");
}
