//! Who gets at the broker and its data keys: nobody but the server's own user, and he gets no more than he asks for.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use testkit::{Cluster, Fixture, Session, process};

/// Speaks to a socket as another user: `postgres`, `nobody`. Sends a hexadecimal message, and prints what comes.
const CLIENT: &str = r#"
import socket, sys, time
path, message, repeat, wait = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_UNIX)
s.settimeout(wait)
try:
    s.connect(path)
except OSError as error:
    print("refused", error.errno)
    sys.exit()
received = b""
try:
    s.sendall(message * repeat)
    while True:
        part = s.recv(65536)
        if not part:
            print("closed", len(received))
            break
        received += part
except socket.timeout:
    print("open", len(received))
except OSError as error:
    print("closed", len(received))
"#;

fn speak_as(user: &str, socket: &Path, message: &[u8], repeat: usize) -> String {
    let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = std::process::Command::new("setpriv");
    command.args([format!("--reuid={user}"), "--clear-groups".into(), "--".into(), "python3".into(), "-c".into()]);
    // What a user's own environment may say about Python is of no interest.
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.args([CLIENT, &socket.display().to_string(), &hex, &repeat.to_string(), WAIT]);
    let Output { stdout, .. } = process::run(command);
    String::from_utf8(stdout).expect("it prints ASCII").trim().to_owned()
}

/// Seconds: longer than the broker waits for a call.
const WAIT: &str = "1.5";
/// The call for the statistics: length 1, variant 3.
const STATISTICS: &[u8] = &[0, 0, 0, 1, 3];
/// The call for the state: length 1, variant 2.
const STATUS: &[u8] = &[0, 0, 0, 1, 2];

fn opened_wide(fixture: &Fixture) {
    // Only a test opens these: the data directory and what is above it.
    let mut path = fixture.cluster.data_directory().join("pg_stat_tmp");
    for _ in 0..4 {
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("root may");
        path.pop();
    }
    fs::set_permissions(fixture.cluster.broker_file("sock"), Permissions::from_mode(0o777)).expect("root may");
}

#[test]
fn another_user_is_refused_by_permissions_and_without_them_by_his_credentials() {
    if !rustix::process::geteuid().is_root() {
        // In CI the tests run as root, so that this one is not left out there.
        assert!(std::env::var_os("CI").is_none(), "only root can become another user");
        eprintln!("NOT TESTED, since only root can become another user: that the broker refuses other users");
        return;
    }
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let socket = fixture.cluster.broker_file("sock");
    assert_eq!(speak_as("nobody", &socket, STATUS, 1), "refused 13", "permission denied");
    opened_wide(&fixture);
    for message in [STATUS, STATISTICS, &[], &[0; 4]] {
        assert_eq!(speak_as("nobody", &socket, message, 1), "closed 0", "not a byte");
    }
    // The same message of the right user is answered.
    let answer = speak_as("postgres", &socket, STATUS, 1);
    assert!(answer.starts_with("closed ") && !["closed 0", "closed 1"].contains(&answer.as_str()), "{answer}");
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    // And root is no exception.
    assert_eq!(speak_as("root", &socket, STATUS, 1), "closed 0");
}

#[test]
fn garbage_from_the_right_user_does_no_harm() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let (broker, socket) = (fixture.cluster.broker(), fixture.cluster.broker_file("sock"));
    let with_length = |length: u32, body: &[u8]| [&length.to_be_bytes(), body].concat();
    let messages: Vec<Vec<u8>> = vec![
        vec![],
        vec![0xff; 3],
        vec![0xff; 4],
        vec![0; 4],
        with_length(u32::MAX, &[]),
        with_length(256 * 1024 + 1, &[]),
        with_length(256 * 1024, &[0; 10]),
        with_length(10, &[0; 10]),
        with_length(10, &[0xff; 10]),
        // A command that must say of what key, and no command.
        with_length(1, &[6]),
        with_length(1, &[7]),
        with_length(1, &[0x80]),
        with_length(2, &[1, 1]),
        // A wrapped key that claims to be of 2^63 bytes.
        with_length(12, &[0, 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for message in &messages {
        let heard = speak_as("postgres", &socket, message, 1);
        let shown = &message[..message.len().min(16)];
        assert!(
            ["closed 0", "closed 1"].contains(&heard.as_str()),
            "{heard} after {shown:?} ({} bytes)",
            message.len()
        );
    }
    let flood = speak_as("postgres", &socket, &[0xff; 100], 10_000);
    assert!(["closed 0", "closed 1"].contains(&flood.as_str()), "{flood} after a megabyte");
    // Who connects and says nothing does not stay, and keeps nobody out meanwhile.
    let mut silent: Vec<_> =
        (0..50).map(|_| std::os::unix::net::UnixStream::connect(&socket)).filter_map(Result::ok).collect();
    assert_eq!(silent.len(), 50, "root connects, and is not served");
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout can be set");
        // The peer has closed it: the end, or a reset.
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "not a byte");
        assert!(stream.write_all(STATUS).is_err() || matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    }
    assert_eq!(fixture.cluster.broker(), broker, "it lives on");
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (1, 0), "and has kept its data keys");
    assert!(!fixture.cluster.log().contains("panicked"));
}

#[test]
fn the_largest_requests_do_not_cost_the_others_the_broker() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let mut client = fixture.connect();
    // A context of almost 64 KiB, which KMS refuses, and a value that carries almost 64 KiB of a wrapped key beside it.
    let large = "SELECT env_encrypt('a text'::text, $1, jsonb_build_object('a', repeat('x', 65000)))";
    let result: Result<Vec<u8>, _> = client.attempt(large, &[&fixture.key_id]);
    println!("a context of 65,000 bytes: {:?}", result.as_ref().map(Vec::len).map_err(|failure| &failure.message));
    if let Ok(sealed) = result {
        assert_eq!(fixture.connect().decrypt(&sealed), "a text");
        let mut forged = sealed.clone();
        let at = 40 + u16::from_be_bytes([sealed[38], sealed[39]]) as usize;
        let keys = u16::from_be_bytes([sealed[at], sealed[at + 1]]) as usize;
        // provider, length, k, key reference, wrapped data key: which grows to what fits.
        let padding = 65_535 - keys;
        let end = at + 2 + keys;
        let stanza = u16::from_be_bytes([sealed[at + 3], sealed[at + 4]]) as usize + padding;
        forged.splice(end..end, vec![7; padding]);
        forged[at..at + 2].copy_from_slice(&65_535_u16.to_be_bytes());
        forged[at + 3..at + 5].copy_from_slice(&u16::try_from(stanza).expect("it fits").to_be_bytes());
        let failure = client.fail_to_decrypt(&forged);
        println!("and a wrapped key of about 64 KiB: {} {}", failure.sqlstate, failure.message);
        assert_ne!(failure.sqlstate, "22P03", "it has the form of a value: {failure:?}");
    }
    fixture.proxy.reset_counts();
    fixture.connect().decrypt(&value);
    assert_eq!(fixture.proxy.total_calls(), 0, "the broker is used by the others");
    assert!(fixture.cluster.log_lines("not available").is_empty(), "{:?}", fixture.cluster.log_lines("not available"));
}

#[test]
fn its_files_and_its_process_are_the_servers_own() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("log_min_messages", "debug1"));
    fixture.connect().encrypt("a text", &fixture.key_id);
    let owner = fs::metadata(fixture.cluster.data_directory()).expect("it is there").uid();
    for ending in ["sock", "lock", "launch", "shared"] {
        let metadata = fs::symlink_metadata(fixture.cluster.broker_file(ending)).expect("the file is there");
        assert_eq!(metadata.mode() & 0o7777, 0o600, "{ending}");
        assert_eq!(metadata.uid(), owner, "{ending}");
    }
    let broker = fixture.cluster.broker();
    // The kernel gives /proc/PID/mem and the like of a process that is not dumpable to root.
    for file in ["mem", "environ", "maps"] {
        assert_eq!(fs::metadata(format!("/proc/{broker}/{file}")).expect("it runs").uid(), 0, "/proc/PID/{file}");
    }
    if owner != 0 {
        let backend = fixture.connect().backend();
        let other = fs::metadata(format!("/proc/{}/mem", fixture.cluster.pid())).map(|metadata| metadata.uid()).ok();
        assert_eq!(other, Some(owner), "which says something: the postmaster's ({backend}) is the server's");
    }
}

/// The bytes of a data key as the emulator hands it out.
fn data_key(fixture: &Fixture, value: &[u8]) -> Vec<u8> {
    use serde_json::json;
    let mut client = fixture.connect();
    let wrapped: String =
        client.one("SELECT translate(encode((env_inspect($1)).wrapped_dek, 'base64'), E'\\n', '')", &[&value]);
    let input = json!({ "CiphertextBlob": wrapped, "EncryptionContext": { "envelope_pg": "v1" } });
    let answer = testkit::Emulator::shared().call("Decrypt", &input).expect("the emulator opens its own");
    let text = answer["Plaintext"].as_str().expect("Decrypt answers with it");
    client.one("SELECT decode($1, 'base64')", &[&text])
}

fn occurs(needle: &[u8], haystack: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|bytes| bytes == needle)
}

#[test]
fn no_key_material_is_where_it_does_not_belong() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("log_min_messages", "debug5"));
    let mut client = fixture.connect();
    let value = client.encrypt("a plaintext of note", &fixture.key_id);
    fixture.connect().decrypt(&value);
    let dek = data_key(&fixture, &value);
    assert_eq!(dek.len(), 32);
    let text: String = client.one(
        "SELECT concat((SELECT json_agg(k) FROM env_stat_kms AS k), (SELECT json_agg(c) FROM env_stat_cache AS c),
                       (SELECT json_agg(b) FROM env_stat_broker AS b))",
        &[],
    );
    let hex: String = dek.iter().map(|byte| format!("{byte:02x}")).collect();
    let base64: String = client.one("SELECT encode($1, 'base64')", &[&dek]);
    let log = fixture.cluster.log();
    let shared = fs::read(fixture.cluster.broker_file("shared")).expect("root reads it");
    for (what, haystack) in [("statistics", text.as_bytes()), ("log", log.as_bytes()), ("shared file", &shared)] {
        assert!(!occurs(&dek, haystack) && !occurs(hex.as_bytes(), haystack), "the data key is in the {what}");
        assert!(!occurs(base64.trim().as_bytes(), haystack), "the data key is in the {what}, in base64");
        assert!(!occurs(b"a plaintext of note", haystack) || what == "log", "the plaintext is in the {what}");
    }
    // What the search is worth: where the data key must be, it is found.
    assert!(memory_has(fixture.cluster.broker(), &dek), "the broker has it");
    client.run("SELECT env_cache_flush(true)");
    testkit::wait_until("the broker has wiped it", || !memory_has(fixture.cluster.broker(), &dek));
}

/// Whether the private memory of a process has these bytes.
fn memory_has(pid: i32, needle: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root reads it");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root reads it");
    maps.lines().filter(|line| line.contains(" rw-p ")).any(|line| {
        let (range, _) = line.split_once(' ').expect("a line of maps has a range");
        let (from, to) = range.split_once('-').expect("a range has two ends");
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("hexadecimal"));
        let mut bytes = vec![0; usize::try_from(to - from).expect("an address space fits")];
        memory.read_exact_at(&mut bytes, from).is_ok() && occurs(needle, &bytes)
    })
}
