//! Something else than a broker listens on its socket, as the right user: statements go on through their own calls.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::{Duration, Instant};

use testkit::{Fixture, Session, process, wait_until};

const LINE: &str = "envelope_pg broker is not available";

/// Answers each connection with some bytes, and then hangs up or says nothing more.
const LISTENER: &str = r#"
import socket, sys
path, answer, stays = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3] == "stays"
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
connections = []
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(answer)
    if stays:
        connections.append(connection)
    else:
        connection.close()
"#;

struct Impostor(Child);

impl Impostor {
    fn listen(fixture: &Fixture, answer: &str, then: &str) -> Self {
        let socket = fixture.cluster.broker_file("sock");
        let mut command = process::bound_as_server("python3", "KILL");
        // What a user has of his own in front of it may not be for others.
        command.env("PATH", "/usr/bin:/bin");
        command.args(["-c", LISTENER]).arg(&socket).args([answer, then]);
        let listener = Self(process::spawn(command));
        wait_until("it listens", || socket.exists());
        listener
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As if 30 s had passed for the avoidance, and a minute for the line in the log.
fn forget_the_last_one(fixture: &Fixture) {
    let counters =
        File::options().write(true).open(fixture.cluster.broker_file("shared")).expect("sessions have made it");
    counters.write_all_at(&[0; 16], 16).expect("it can be written");
}

#[test]
fn nonsense_and_half_answers_are_no_obstacle() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.cluster.stop_broker();
    for (answer, then, reason) in [
        ("ff", "stays", "its answer is malformed"),
        ("00 02", "stays", "its answer is malformed"),
        // Too long, and of no length.
        ("00 01 ffffffff", "stays", "its answer is malformed"),
        ("00 01 00000000", "stays", "its answer is malformed"),
        // Of the right length, and no answer.
        ("00 01 00000004 ffffffff", "stays", "its answer is malformed"),
        // An answer, but to another call.
        ("00 01 00000002 00 06", "stays", "its answer is malformed"),
        // Half of one, and then nothing, or the end.
        ("00 01 00000008 0001", "stays", "it shows no sign of life"),
        ("00 01 0000", "stays", "it shows no sign of life"),
        ("", "stays", "it shows no sign of life"),
        ("00 01 00000008 0001", "leaves", "it has ended"),
        ("", "leaves", "it has ended"),
    ] {
        forget_the_last_one(&fixture);
        let lines = fixture.cluster.log_lines(LINE).len();
        fixture.proxy.reset_counts();
        let impostor = Impostor::listen(&fixture, answer, then);
        let started = Instant::now();
        assert_eq!(fixture.connect().decrypt(&value), "a text", "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{answer:?}: {:?}", started.elapsed());
        assert_eq!(fixture.kms_calls(), (0, 1), "{answer:?}: the session's own call");
        let lines = &fixture.cluster.log_lines(LINE)[lines..];
        assert!(matches!(lines, [line] if line.contains(reason)), "{answer:?}, {then}: {lines:?}");
        drop(impostor);
        fs::remove_file(fixture.cluster.broker_file("sock")).expect("it was there");
    }
    let log = fixture.cluster.log();
    assert!(!log.contains("panicked") && !log.contains("terminated by signal"), "{log}");
    forget_the_last_one(&fixture);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!(fixture.cluster.brokers().len(), 1, "a broker takes its place");
}
