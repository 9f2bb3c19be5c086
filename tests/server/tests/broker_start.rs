//! Starting and ending the broker: one and not two, and nothing fails for want of it.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use testkit::process::{children, give_to_server, is_running, send_signal};
use testkit::{Cluster, Fault, Fixture, Session, expect_end, keep_doing, wait_until};

const LINE: &str = "envelope_pg broker is not available";

/// All of them at once.
fn encrypt_in_thirty_sessions(fixture: &Fixture) {
    let clients: Vec<_> = (0..30).map(|_| fixture.connect()).collect();
    let start = std::sync::Barrier::new(clients.len());
    thread::scope(|scope| {
        for mut client in clients {
            let (start, key_id) = (&start, &fixture.key_id);
            scope.spawn(move || {
                start.wait();
                client.encrypt("a text", key_id);
            });
        }
    });
}

#[test]
fn thirty_sessions_at_once_start_one() {
    let fixture = Fixture::with_broker();
    for _ in 0..3 {
        fixture.proxy.reset_counts();
        encrypt_in_thirty_sessions(&fixture);
        assert_eq!(fixture.cluster.brokers().len(), 1);
        assert_eq!(fixture.kms_calls(), (1, 0));
        fixture.cluster.stop_broker();
    }
    assert!(fixture.cluster.log_lines(LINE).is_empty(), "{:?}", fixture.cluster.log_lines(LINE));
}

#[test]
fn one_start_is_one_registration() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("log_min_messages", "debug1"));
    encrypt_in_thirty_sessions(&fixture);
    let registered = fixture.cluster.log_lines("registering background worker \"envelope_pg broker\"");
    assert_eq!(registered.len(), 1, "{registered:?}");
}

#[test]
fn without_a_worker_slot_sessions_call_kms_themselves() {
    // The launcher of logical replication takes the one slot.
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("max_worker_processes", "1"));
    let started = Instant::now();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert!(started.elapsed() < Duration::from_secs(2), "nobody waits for a slot: {:?}", started.elapsed());
    assert_eq!(fixture.kms_calls(), (1, 1));
    assert!(fixture.cluster.brokers().is_empty());
    let lines = fixture.cluster.log_lines(LINE);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("LOG:") && lines[0].contains("max_worker_processes"), "{lines:?}");
    assert!(fixture.cluster.log_lines("WARNING").is_empty(), "{:?}", fixture.cluster.log_lines("WARNING"));
}

/// Takes the lock of the session that starts the broker, so that nobody does.
fn keep_from_starting(fixture: &Fixture) -> File {
    let lock = File::options().create(true).truncate(false).write(true).open(fixture.cluster.broker_file("launch"));
    let lock = lock.expect("the server's directory can be written");
    give_to_server(&fixture.cluster.broker_file("launch"));
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no session holds it");
    lock
}

#[test]
fn a_session_that_waits_for_the_start_can_be_ended() {
    let fixture = Fixture::with_broker();
    let _lock = keep_from_starting(&fixture);
    let mut witness = fixture.connect();
    for (end, sqlstate) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
        let mut client = fixture.connect();
        let (pid, key_id) = (client.backend(), fixture.key_id.clone());
        let statement = thread::spawn(move || client.query("SELECT env_encrypt('a text'::text, $1)", &[&key_id]));
        witness.see_waiting(pid);
        let started = Instant::now();
        witness.run(&format!("SELECT {end}({pid})"));
        expect_end(statement.join().expect("no thread panics"), sqlstate);
        assert!(started.elapsed() < Duration::from_millis(900), "{end}: {:?}", started.elapsed());
    }
    assert_eq!(fixture.proxy.total_calls(), 0);
    // One that waits on goes its own way.
    witness.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.proxy.total_calls(), 1);
    let lines = fixture.cluster.log_lines(LINE);
    assert!(matches!(&lines[..], [line] if line.contains("did not start in time")), "{lines:?}");
    assert!(fixture.cluster.log_lines("panicked").is_empty(), "{}", fixture.cluster.log());
}

/// A data key is refreshed in the background when there is no broker any more and none can be started.
#[test]
fn a_refresh_in_the_background_waits_for_no_broker() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", "8s"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    fixture.cluster.stop_broker();
    let _lock = keep_from_starting(&fixture);
    // Later than 92 % of its time, when a refresh is due at the latest, and earlier than all of it.
    client.see_aged(7.4);
    let started = Instant::now();
    assert_eq!(client.decrypt(&value), "a text");
    assert!(started.elapsed() < Duration::from_secs(1), "the statement waited: {:?}", started.elapsed());
}

#[test]
fn a_session_that_is_terminated_while_it_refreshes_ends_cleanly() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", "2s"));
    let mut client = fixture.connect();
    let (value, pid) = (client.encrypt("a text", &fixture.key_id), client.backend());
    fixture.cluster.stop_broker();
    let _lock = keep_from_starting(&fixture);
    client.see_aged(1.85);
    let statement = thread::spawn(move || {
        let read = "SELECT env_decrypt($1), pg_sleep(1)";
        client.query(read, &[&value])
    });
    let mut witness = fixture.connect();
    let sleeps = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1";
    wait_until("the statement has read", || witness.one::<Option<bool>>(sleeps, &[&pid]) == Some(true));
    witness.run(&format!("SELECT pg_terminate_backend({pid})"));
    let failure = statement.join();
    wait_until("the backend has ended", || !is_running(pid));
    let log = fixture.cluster.log();
    assert!(!log.contains("panicked") && !log.contains("already"), "{log}");
    assert!(!log.contains("terminating any other active server processes"), "{log}");
    expect_end(failure.expect("no thread panics"), "57P01");
}

#[test]
fn the_path_of_the_data_directory_may_be_longer_than_that_of_a_socket() {
    let fixture = Fixture::with_broker_and(Cluster::builder().nested_in(&["a".repeat(110), "b".repeat(110)]));
    let path = fixture.cluster.data_directory();
    assert!(path.as_os_str().len() > 200, "{}", path.display());
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (1, 0));
    assert_eq!(fixture.cluster.brokers().len(), 1);
}

#[test]
fn it_ends_with_the_server() {
    for busy in [false, true] {
        let fixture = Fixture::with_broker();
        fixture.connect().encrypt("a text", &fixture.key_id);
        let broker = fixture.cluster.broker();
        let mut client = fixture.connect();
        let other = fixture.new_key().arn;
        if busy {
            fixture.proxy.set(Fault::Hang);
        }
        thread::scope(|scope| {
            if busy {
                scope.spawn(|| client.query("SELECT env_encrypt('a text'::text, $1)", &[&other]).is_err());
                wait_until("the broker's call hangs", || fixture.proxy.hanging() == 1);
            }
            let started = Instant::now();
            fixture.cluster.stop_with(Signal::INT);
            println!("fast shutdown, busy broker {busy}: {:?}", started.elapsed());
            assert!(started.elapsed() < Duration::from_secs(2), "busy {busy}: {:?}", started.elapsed());
        });
        assert!(!is_running(broker));
        fixture.proxy.clear();
        fixture.cluster.start_again();
        fixture.connect().encrypt("a text", &fixture.key_id);
        assert_eq!(fixture.cluster.brokers().len(), 1, "the next server has a broker");
    }
}

#[test]
fn a_smart_shutdown_does_not_wait_for_it() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let started = Instant::now();
    fixture.cluster.stop_with(Signal::TERM);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn it_ends_when_the_postmaster_is_killed() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    // What was committed asynchronously is on disk.
    fixture.cluster.sql("CHECKPOINT");
    let processes = children(fixture.cluster.pid());
    let started = Instant::now();
    assert!(send_signal(fixture.cluster.pid(), Signal::KILL));
    wait_until("the broker has ended", || !is_running(broker));
    println!("postmaster killed: the broker ended after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // No server starts while another process of the one before lives.
    wait_until("all have ended", || !processes.iter().any(|pid| is_running(*pid)));
    // What it left behind is in nobody's way.
    fixture.cluster.stop_immediate();
    fixture.cluster.start_again();
    fixture.proxy.reset_counts();
    fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.kms_calls(), (1, 0));
}

#[test]
fn it_ends_when_it_was_idle_for_long() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.broker_idle_timeout", "2s"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    // Requests keep it; the statistics do not.
    keep_doing(Duration::from_secs(3), Duration::from_millis(500), || {
        fixture.connect().decrypt(&value);
        assert_eq!(fixture.cluster.broker(), broker);
    });
    let started = Instant::now();
    wait_until("the broker has ended", || {
        fixture.connect().run("SELECT * FROM env_stat_kms, env_stat_broker");
        fixture.cluster.brokers().is_empty()
    });
    assert!((Duration::from_millis(1_500)..Duration::from_secs(5)).contains(&started.elapsed()));
    assert!(!Path::new(&fixture.cluster.broker_file("sock")).exists());
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!(fixture.cluster.brokers().len(), 1);
    assert!(fixture.cluster.log_lines(LINE).is_empty());
}

/// As after somebody has removed the socket: the next session starts another one, which must not take over.
#[test]
fn two_do_not_serve_at_the_same_time() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    std::fs::remove_file(fixture.cluster.broker_file("sock")).expect("it listens there");
    let started = Instant::now();
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    wait_until("the other one has given up", || fixture.cluster.brokers() == [broker]);
    assert!(!fixture.cluster.broker_file("sock").exists(), "only the holder of the lock makes it");
    let lines = fixture.cluster.log_lines(LINE);
    assert!(matches!(&lines[..], [line] if line.contains("did not start in time")), "{lines:?}");
}

/// Likewise when the broker ends while it is asked.
#[test]
fn a_refresh_whose_broker_has_ended_waits_for_no_other() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", "12s"));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    // Later than 92 % of its time.
    client.see_aged(11.05);
    fixture.proxy.set(Fault::Hang);
    assert_eq!(client.decrypt(&value), "a text");
    wait_until("the broker's call hangs", || fixture.proxy.hanging() == 1);
    let _lock = keep_from_starting(&fixture);
    let broker = fixture.cluster.broker();
    assert!(send_signal(broker, Signal::TERM));
    wait_until("the broker has ended", || !is_running(broker));
    fixture.proxy.clear();
    let started = Instant::now();
    assert_eq!(client.decrypt(&value), "a text");
    assert!(started.elapsed() < Duration::from_secs(1), "the statement waited: {:?}", started.elapsed());
}
