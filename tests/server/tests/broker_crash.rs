//! The broker's process dies, or is told to end, while sessions use it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::process::{is_running, send_signal};
use testkit::{Client, Fault, Fixture, Rule, Session, wait_until};

/// A session that works, as soon as the server takes connections again.
fn reconnect(fixture: &Fixture) -> Client {
    let mut client = None;
    wait_until("the server takes connections", || {
        client = fixture.cluster.try_connect("postgres", "postgres").ok();
        client.is_some()
    });
    client.expect("it has just connected")
}

#[test]
fn killed_in_the_middle_of_a_call() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    // What was committed asynchronously is on disk.
    fixture.cluster.sql("CHECKPOINT");
    let mut idle = fixture.connect();
    let other = fixture.new_key().arn;
    fixture.proxy.set(Rule::every(Fault::Hang).times(1));
    thread::scope(|scope| {
        let waiting =
            scope.spawn(|| fixture.connect().query("SELECT env_encrypt('a text'::text, $1)", &[&other]).is_ok());
        wait_until("the broker's call hangs", || fixture.proxy.hanging() == 1);
        assert!(send_signal(broker, Signal::KILL));
        // PostgreSQL ends all sessions when a process that has its shared memory is killed.
        assert!(!waiting.join().expect("no thread panics"), "the session is gone, or its statement has failed");
    });
    wait_until("the other sessions end", || idle.simple_query("SELECT 1").is_err());

    let started = Instant::now();
    let mut client = reconnect(&fixture);
    fixture.proxy.reset_counts();
    assert_eq!(client.decrypt(&value), "a text");
    let new = client.encrypt("a text", &fixture.key_id);
    println!("killed: works again {:?} after the server took connections", started.elapsed());
    assert_eq!(fixture.kms_calls(), (1, 1), "the new broker has nothing of the one before");
    assert_ne!(fixture.cluster.broker(), broker);
    assert!(client.one::<bool>("SELECT env_dek_id($1) <> env_dek_id($2)", &[&value, &new]));
    fixture.connect().decrypt(&new);
    assert_eq!(fixture.kms_calls(), (1, 1), "and it shares");
}

#[test]
fn killed_and_told_to_quit_again_and_again_while_sessions_work() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.cluster.sql("CHECKPOINT");
    // SIGQUIT is what the postmaster sends when another process has crashed: no better than SIGKILL.
    for signal in [Signal::KILL, Signal::QUIT, Signal::KILL] {
        send_signal(fixture.cluster.broker(), signal);
        // Some of them meet the restart.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    wait_until("a session reads again", || {
                        let client = fixture.cluster.try_connect("postgres", "postgres");
                        client.is_ok_and(|mut client| client.query_one("SELECT env_decrypt($1)", &[&value]).is_ok())
                    });
                });
            }
        });
        wait_until("there is one broker", || fixture.cluster.brokers().len() == 1);
    }
    assert!(fixture.cluster.log_lines("panicked").is_empty());
}

#[test]
fn told_to_end_while_requests_are_pending() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let broker = fixture.cluster.broker();
    fixture.connect().run("SELECT env_cache_flush(true)");
    fixture.proxy.set(Fault::Delay(Duration::from_secs(2)));
    fixture.proxy.reset_counts();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|_| {
                let mut client = fixture.connect();
                let value = &value;
                scope.spawn(move || client.decrypt(value))
            })
            .collect();
        wait_until("the broker calls KMS", || fixture.proxy.calls("Decrypt") == 1);
        let started = Instant::now();
        fixture.cluster.sql("SELECT env_broker_stop()");
        assert!(started.elapsed() < Duration::from_millis(1_800), "it did not wait for KMS: {:?}", started.elapsed());
        for reader in readers {
            assert_eq!(reader.join().expect("its statement goes on"), "a text");
        }
    });
    assert_ne!(fixture.cluster.broker(), broker, "another one has taken over");
    assert!(fixture.proxy.calls("Decrypt") <= 2, "one call each: {:?}", fixture.kms_calls());
    assert!(!is_running(broker));
    assert!(fixture.cluster.log_lines("not available").is_empty(), "{}", fixture.cluster.log());
}

#[test]
fn told_to_end_when_there_is_none() {
    let fixture = Fixture::with_broker();
    let mut client = fixture.connect();
    assert!(!client.one::<bool>("SELECT env_broker_stop()", &[]));
    client.encrypt("a text", &fixture.key_id);
    fixture.cluster.stop_broker();
    assert!(!fixture.cluster.broker_file("sock").exists(), "its socket is gone");
    assert!(!client.one::<bool>("SELECT env_broker_stop()", &[]));
    assert_eq!(client.one::<i64>("SELECT count(*) FROM env_stat_broker", &[]), 0);
    // An administrator's SIGTERM does the same.
    fixture.connect().encrypt("a text", &fixture.key_id);
    send_signal(fixture.cluster.broker(), Signal::TERM);
    wait_until("it has ended", || fixture.cluster.brokers().is_empty());
    fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.cluster.brokers().len(), 1);
}
