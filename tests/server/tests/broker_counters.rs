//! The file of counters that all processes of the server map: when there is no room for it, and when it cannot be used.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use testkit::process::{give_to_server, run};
use testkit::{Fixture, Session, wait_until};

const EVERYWHERE: &str = "SELECT env_cache_flush(everywhere => true)";
/// A session that cannot see flushes keeps a data key for a second.
const KEPT: Duration = Duration::from_millis(1_200);

/// What is mapped and has no room on the disk ends a process by SIGBUS when the disk is full.
#[test]
fn it_has_its_room_on_the_disk_before_it_is_written() {
    let fixture = Fixture::kms();
    assert!(!fixture.cluster.broker_file("shared").exists());
    fixture.connect().encrypt("a text", &fixture.key_id);
    let file = fixture.cluster.broker_file("shared").metadata().expect("the session has made it");
    assert_eq!(file.len(), 8_192);
    assert!(file.blocks() * 512 >= 8_192, "{} blocks", file.blocks());
}

/// A file system without room over the directory, until this is dropped.
struct FullDisk(PathBuf);

impl FullDisk {
    fn over(path: PathBuf) -> Self {
        let mut mount = Command::new("mount");
        run({
            mount.args(["-t", "tmpfs", "-o", "size=8k,mode=700", "none"]).arg(&path);
            mount
        });
        let full = Self(path);
        give_to_server(&full.0);
        fs::write(full.0.join("full"), [1; 8_192]).expect("there is room for two pages");
        full
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Lazily: processes of the server have the file mapped.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_error_and_not_the_end_of_the_server() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "only root can mount a file system");
        eprintln!("NOT TESTED, since only root can mount a file system: a full disk");
        return;
    }
    let fixture = Fixture::with_broker();
    let disk = FullDisk::over(fixture.cluster.data_directory().join("pg_stat_tmp"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    assert!(client.fail(EVERYWHERE, &[]).with("58000").text().contains("No space left on device"));
    assert_eq!(client.decrypt(&value), "a text");
    assert!(fixture.cluster.brokers().is_empty());
    fs::remove_file(disk.0.join("full")).expect("it is there");
    wait_until("it is tried again", || client.attempt::<i32>(EVERYWHERE, &[]).is_ok());
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(fixture.cluster.brokers().len(), 1);
    assert!(!fixture.cluster.log().contains("terminated by signal"), "{}", fixture.cluster.log());
    fixture.cluster.stop_broker();
}

#[test]
fn without_it_there_is_no_broker_and_no_data_key_is_kept_for_long() {
    let fixture = Fixture::with_broker();
    let in_its_place = fixture.cluster.broker_file("shared");
    fs::create_dir(&in_its_place).expect("nobody has needed it before");
    let (mut one, mut other) = (fixture.connect(), fixture.connect());
    let value = one.encrypt("a text", &fixture.key_id);
    assert_eq!(other.decrypt(&value), "a text");
    assert!(fixture.cluster.brokers().is_empty(), "it could not be told to flush");
    assert_eq!(fixture.kms_calls(), (1, 1));
    let lines = fixture.cluster.log_lines("envelope_pg cannot see the flushes and rotations of other sessions");
    assert_eq!(lines.len(), 2, "a line of each session: {lines:?}");

    // Whoever flushes is told that others cannot be told, and has none himself any more.
    other.decrypt(&value);
    fixture.proxy.reset_counts();
    for client in [&mut one, &mut other] {
        client.fail(EVERYWHERE, &[]).with("58000").says("cannot be told");
        assert_eq!(client.decrypt(&value), "a text");
    }
    assert_eq!(fixture.kms_calls(), (0, 2));
    // Somebody whom the file is no problem for may have flushed meanwhile.
    one.see_aged(KEPT.as_secs_f64());
    assert_eq!(one.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (0, 3));

    // It is tried again, and what may have been missed is made up for.
    fs::remove_dir(&in_its_place).expect("it is empty");
    thread::sleep(KEPT);
    fixture.proxy.reset_counts();
    assert_eq!(one.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (0, 1));
    assert_eq!(fixture.cluster.brokers().len(), 1);
    assert_eq!(other.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (0, 1), "the broker has it");
    other.run(EVERYWHERE);
    assert_eq!(one.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (0, 2));
}
