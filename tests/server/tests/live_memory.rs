//! What the shipped library has in the memory of a live backend and a live broker: looked for from outside, as root may.

#[path = "../../../crates/envelope_core/tests/common/secrets.rs"]
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::Signal;
use secrets::secrets;
use serde_json::json;
use testkit::{Client, Cluster, Emulator, Fixture, Session, process, wait_until};

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

/// The initial state of SHA-256 (FIPS 180-4, section 5.3.3).
const SHA_256: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The data key of a value or stub, and KMS's answer in base64. `session` is of another server: what it is told would be found.
fn unwrapped(value: &[u8], session: &mut Client) -> (Vec<u8>, String) {
    let wrapped: String =
        session.one("SELECT translate(encode((env_inspect($1)).wrapped_dek, 'base64'), E'\\n', '')", &[&value]);
    let context: String =
        session.one("SELECT (env_encryption_context($1) || '{\"envelope_pg\": \"v1\"}')::text", &[&value]);
    let context: serde_json::Value = serde_json::from_str(&context).expect("jsonb is JSON");
    let input = json!({ "CiphertextBlob": wrapped, "EncryptionContext": context });
    let answer = Emulator::shared().call("Decrypt", &input).expect("the emulator opens its own");
    let base64 = answer["Plaintext"].as_str().expect("Decrypt answers with it").to_owned();
    (session.one("SELECT decode($1, 'base64')", &[&base64]), base64)
}

/// What is looked for: all about a value and its data key, and what KMS has answered.
struct Search {
    needles: Vec<(&'static str, Vec<u8>)>,
}

impl Search {
    /// `session` is of another server: what it is told would be found.
    fn of(value: &[u8], session: &mut Client) -> Self {
        let (dek, base64) = unwrapped(value, session);
        let nonce = &value[value.len() - 16 - PLAINTEXT.len() - 24..][..24];
        let mut needles = secrets(&dek, nonce);
        needles.push(("the data key in base64", base64.into_bytes()[..40].to_vec()));
        Self { needles }
    }

    /// What a process has in its private memory, and how often.
    fn in_process(&self, pid: i32) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        self.places(pid).into_iter().for_each(|(name, _)| *found.entry(name).or_default() += 1);
        found
    }

    /// What a process has in its private memory, and where.
    fn places(&self, pid: i32) -> Vec<(&'static str, Place)> {
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root reads it");
        let mut found = Vec::new();
        for (from, to, place) in mappings(pid) {
            let mut bytes = vec![0; usize::try_from(to - from).expect("an address space fits")];
            if memory.read_exact_at(&mut bytes, from).is_ok() {
                found.extend(self.in_bytes(&bytes).into_iter().map(|name| (name, place)));
            }
        }
        found
    }

    fn in_bytes(&self, bytes: &[u8]) -> Vec<&'static str> {
        let mut found = Vec::new();
        let mut starts = vec![false; 1 << 16];
        for (_, needle) in &self.needles {
            starts[usize::from(needle[0]) << 8 | usize::from(needle[1])] = true;
        }
        // One look at each byte but for those that a needle begins with.
        for at in 0..bytes.len().saturating_sub(15) {
            if starts[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])] {
                let needles = self.needles.iter().filter(|(_, needle)| bytes[at..].starts_with(needle));
                found.extend(needles.map(|(name, _)| *name));
            }
        }
        found
    }

    /// What tokens are made with, by the table of index keys.
    fn of_index_key(stub: &[u8], session: &mut Client) -> Self {
        let (dek, _) = unwrapped(stub, session);
        let info = [&b"envelope_pg index v1\0\x01\0\x05index"[..], &1_u32.to_be_bytes()].concat();
        let mut sub_key = [0; 32];
        hkdf::Hkdf::<sha2::Sha256>::new(None, &dek).expand(&info, &mut sub_key).expect("32 bytes");
        let mut needles = vec![("the index key", dek), ("the sub-key", sub_key.to_vec())];
        // HMAC (RFC 2104) keeps the two states of SHA-256 that the padded key makes, as words of the machine.
        for (name, padding) in [("the inner state", 0x36), ("the outer state", 0x5c)] {
            let mut block = [padding; 64];
            block.iter_mut().zip(sub_key).for_each(|(byte, key)| *byte ^= key);
            let mut state = SHA_256;
            sha2::block_api::compress256(&mut state, &[block]);
            needles.push((name, state.iter().flat_map(|word| word.to_ne_bytes()).collect()));
        }
        Self { needles }
    }

    fn is_clean(&self, pid: i32) -> bool {
        self.in_process(pid).is_empty()
    }
}

/// What memory is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Left out of core dumps and wiped on fork.
    Keys,
    Stack,
    Other,
}

/// The private memory of a process that can be written: from, to, what it is for (proc(5), smaps).
fn mappings(pid: i32) -> Vec<(u64, u64, Place)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("root reads it");
    let mut mappings: Vec<(u64, u64, Place)> = Vec::new();
    let mut is_ours = false;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|known| known == flag);
            if let Some(last) = mappings.last_mut().filter(|_| is_ours && has("dd") && has("wf")) {
                last.2 = Place::Keys;
            }
        } else if let Some((from, to)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')) {
            is_ours = line.contains(" rw-p ");
            if let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
                && is_ours
            {
                mappings.push((from, to, if line.ends_with("[stack]") { Place::Stack } else { Place::Other }));
            }
        }
    }
    mappings
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
        assert!(search.is_clean(pids[1]), "{:?}", search.places(pids[1]));
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

/// Tokens are made again and again: what they are made with is where keys are, and after a flush nowhere.
#[test]
fn an_index_key_is_in_memory_for_keys() {
    let (fixture, elsewhere) = (Fixture::with_broker(), Fixture::local());
    let mut client = fixture.connect();
    client.one::<i32>("SELECT env_create_index_key('index', $1)", &[&fixture.key_id]);
    let stub: Vec<u8> = client.one("SELECT stub FROM envelope_internal.index_key", &[]);
    let search = Search::of_index_key(&stub, &mut elsewhere.connect());
    client.run("SELECT env_cache_flush()");
    for table in ["'short'", "repeat('long', 100)"] {
        client.run(&format!("SELECT env_blind_index({table} || i, 'index') FROM generate_series(1, 10) AS i"));
    }
    let places = search.places(client.backend());
    let of =
        |wanted: &str| places.iter().filter(|(name, _)| *name == wanted).map(|(_, place)| *place).collect::<Vec<_>>();
    println!("{places:?}");
    assert_eq!(of("the index key"), [Place::Keys], "its sub-keys are derived from it");
    assert_eq!(of("the sub-key"), [], "HMAC has its states in its place");
    for state in ["the inner state", "the outer state"] {
        assert!(of(state).contains(&Place::Keys), "else this could not fail: {places:?}");
        // What a single token needed, until the stack is wiped or used again.
        assert!(of(state).iter().all(|place| *place != Place::Other), "{places:?}");
    }
    client.run("SELECT env_cache_flush(true)");
    assert!(search.is_clean(client.backend()), "{:?}", search.places(client.backend()));
}

/// A session that dies with a core dump, as the system writes it.
#[test]
fn a_core_dump_has_no_key() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("Linux has it");
    if pattern.contains(['|', '/']) {
        println!("skipped: core dumps do not stay in the directory of the process ({})", pattern.trim());
        return;
    }
    let (fixture, elsewhere) = (Fixture::kms(), Fixture::local());
    let mut client = fixture.connect();
    let (value, pid) = (client.encrypt(PLAINTEXT, &fixture.key_id), client.backend());
    client.one::<i32>("SELECT env_create_index_key('index', $1)", &[&fixture.key_id]);
    client.run("SELECT env_blind_index('a value', 'index')");
    let stub: Vec<u8> = client.one("SELECT stub FROM envelope_internal.index_key", &[]);
    let mut search = Search::of(&value, &mut elsewhere.connect());
    search.needles.extend(Search::of_index_key(&stub, &mut elsewhere.connect()).needles);
    assert_eq!(client.decrypt(&value), PLAINTEXT);
    client.run("SELECT 'this is in the core dump'");
    let found = search.in_process(pid);
    assert!(["K", "the index key", "the inner state"].iter().all(|name| found.contains_key(name)), "{found:?}");
    let mut limit = process::as_server("prlimit");
    limit.args(["--pid", &pid.to_string(), "--core=unlimited:"]);
    process::run(limit);
    // Private memory only (core(5)): what processes share is not theirs to wipe.
    fs::write(format!("/proc/{pid}/coredump_filter"), "0x31").expect("root may");
    assert!(process::send_signal(pid, Signal::ABORT));
    wait_until("the backend has ended", || !process::is_running(pid));
    let core = fs::read_dir(fixture.cluster.data_directory())
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")))
        .expect("the system writes it before the process ends");
    let bytes = fs::read(core).expect("root may");
    assert!(memmem(&bytes, b"this is in the core dump"), "else this could not fail");
    let found: BTreeSet<_> = search.in_bytes(&bytes).into_iter().collect();
    println!("{} MB of core dump: {found:?}", bytes.len() >> 20);
    // What single values and tokens have left on the stack until a flush wipes it.
    let of_stack = [
        "a round key of the message key",
        "the hash key",
        "the mask of the tag",
        "the key stream",
        "the inner state",
        "the outer state",
    ];
    let keys: Vec<_> = found.iter().filter(|name| !of_stack.contains(name)).collect();
    assert!(keys.is_empty(), "{keys:?}");
}

fn memmem(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
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
