//! Memory for keys, seen from outside of the process: left out of core dumps, wiped in a forked process, locked.

use std::fs;

use testkit::{Cluster, Fixture, Session, process};

/// The parts of a process's memory that are for keys: kB that are there, kB that are locked, flags (proc(5), smaps).
fn of(pid: i32) -> Vec<(usize, usize, Vec<String>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process runs");
    let mut parts = Vec::new();
    let (mut resident, mut locked) = (0, 0);
    for line in text.lines() {
        let kb = |line: &str| line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB");
        match line.split(':').next() {
            Some("Rss") => resident = kb(line),
            Some("Locked") => locked = kb(line),
            Some("VmFlags") => {
                let flags: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
                let has = |flag: &str| flags.iter().any(|known| known == flag);
                // dd: not in a core dump. Of the mappings of PostgreSQL and of libraries none has it but what glibc 2.41 keeps for
                // getrandom, which the kernel may drop (dp).
                if has("dd") && has("wr") && !has("sh") && !has("io") && !has("dp") {
                    parts.push((resident, locked, flags));
                }
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn keys_of_a_session_have_memory_that_is_kept_to_itself() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    let pid = client.backend();
    assert!(of(pid).is_empty(), "nothing before the first key");
    let value = client.encrypt("a text", &fixture.key_id);
    let parts = of(pid);
    assert!(!parts.is_empty(), "memory for keys");
    for (resident, locked, flags) in &parts {
        assert!(*resident > 0);
        assert!(flags.iter().any(|flag| flag == "wf"), "wiped on fork: {flags:?}");
        assert!(flags.iter().any(|flag| flag == "lo") && locked == resident, "locked: {flags:?}");
    }
    // A few data keys more need no more of it.
    let before: usize = parts.iter().map(|(resident, ..)| resident).sum();
    for _ in 0..3 {
        let key = fixture.new_key().arn;
        client.encrypt("a text", &key);
    }
    let after: usize = of(pid).iter().map(|(resident, ..)| resident).sum();
    assert!(after <= before + 64 && after < 512, "{before} kB, then {after} kB");
    assert_eq!(client.decrypt(&value), "a text");
    // The session forks: what it runs has nothing of the parent's keys, and the session has them still.
    client.run("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'");
    assert_eq!(client.decrypt(&value), "a text");
}

#[test]
fn preloaded_the_postmaster_has_none_and_sessions_and_broker_do() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("shared_preload_libraries", "envelope_pg"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    assert!(of(fixture.cluster.pid()).is_empty(), "what it allocates would be wiped in its children");
    assert!(!of(client.backend()).is_empty());
    assert!(!of(fixture.cluster.broker()).is_empty());
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

/// A limit of 0: keys work all the same, and env_check says so.
#[test]
fn what_cannot_be_locked_is_said() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    let pid = client.backend();
    let finding = "SELECT count(*) FROM env_check() WHERE finding = 'keys_in_swap'";
    assert_eq!(fixture.connect().one::<i64>(finding, &[]), 0);
    let mut command = process::as_server("prlimit");
    command.args(["--pid", &pid.to_string(), "--memlock=0:0"]);
    process::run(command);
    let value = client.encrypt("a text", &fixture.key_id);
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(client.one::<i64>(finding, &[]), 1);
    assert!(of(pid).iter().all(|(_, locked, _)| *locked == 0));
}

#[test]
fn core_dumps_are_said() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    let finding = "SELECT count(*) FROM env_check() WHERE finding = 'core_dumps'";
    for (limit, found) in [("unlimited", 1), ("0", 0)] {
        let mut command = process::as_server("prlimit");
        command.args(["--pid", &client.backend().to_string(), &format!("--core={limit}:")]);
        // The hard limit may be 0 already.
        if fs::read_to_string(format!("/proc/{}/limits", client.backend()))
            .is_ok_and(|limits| has_core_limit_of_zero(&limits))
            && found == 1
        {
            continue;
        }
        process::run(command);
        assert_eq!(client.one::<i64>(finding, &[]), found, "{limit}");
    }
}

fn has_core_limit_of_zero(limits: &str) -> bool {
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    line.split_whitespace().nth(5) == Some("0")
}
