//! A broker that is stopped again and again, and what is left of one when the server starts anew.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::{Fixture, Session, Stopped, wait_until};

/// Sessions went on without the broker for 30 s then, each with data keys of its own.
#[test]
fn sessions_stay_with_a_broker_that_is_stopped_ten_times_in_a_second() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.proxy.reset_counts();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for session in 0..8 {
            let (fixture, over) = (&fixture, &over);
            scope.spawn(move || {
                let (started, mut number) = (Instant::now(), 0);
                // Also where the stops fail.
                while !over.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(60) {
                    // A new session asks for its first value.
                    fixture.connect().encrypt(&format!("{session} {number}"), &fixture.key_id);
                    number += 1;
                }
            });
        }
        let mut admin = fixture.connect();
        for _ in 0..10 {
            wait_until("there is a broker to stop", || admin.one("SELECT env_broker_stop()", &[]));
            thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    let (made, _) = fixture.kms_calls();
    println!("data keys after ten stops in a second: {made}");
    // One for each new broker, and a few for sessions that met one stop after the other.
    assert!(made <= 40, "{made} data keys");
    let log = fixture.cluster.log();
    assert!(!log.contains("broker is not available"), "{log}");
    let (before, _) = fixture.kms_calls();
    for _ in 0..10 {
        fixture.connect().encrypt("a text", &fixture.key_id);
    }
    assert!(fixture.kms_calls().0 <= before + 1, "the sessions share data keys");
}

#[test]
fn a_directory_that_is_missing_is_made_anew() {
    let fixture = Fixture::with_broker();
    fixture.cluster.stop_with(Signal::INT);
    let directory = fixture.cluster.data_directory().join("pg_stat_tmp");
    fs::remove_dir_all(&directory).expect("the directory can be removed");
    fixture.cluster.start_again();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    wait_until("the broker runs", || fixture.cluster.brokers().len() == 1);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

/// That sessions do without the broker is written into a file, which is there after a restart.
#[test]
fn a_broker_that_was_avoided_is_used_after_a_restart() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    {
        let _stopped = Stopped::stop(fixture.cluster.broker());
        fixture.connect().encrypt("a text", &fixture.key_id);
    }
    fixture.cluster.restart();
    fixture.connect().encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.cluster.brokers().len(), 1, "it was started for that");
}
