//! A broker that hangs: statements go on through their own calls, soon, and at once from the second one on.

use std::thread;
use std::time::{Duration, Instant};

use testkit::broker::SILENCE;
use testkit::{Cluster, Fault, Fixture, Rule, Session, Stopped, expect_end, expect_error, wait_until};

/// No wait for the broker at all.
const AT_ONCE: Duration = Duration::from_millis(900);
/// The silence, then a call of the session's own, its first connection to KMS included.
const SOON: Duration = Duration::from_millis(4_000);

const LINE: &str = "envelope_pg broker is not available";

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

#[test]
fn statements_go_on_when_the_broker_stops_before_they_ask() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.proxy.reset_counts();
    let stopped = Stopped::stop(fixture.cluster.broker());

    // All ask it at the same time, so all wait for it once.
    let took: Vec<_> = thread::scope(|scope| {
        let sessions: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = fixture.connect();
                    let (text, took) = timed(|| client.decrypt(&value));
                    assert_eq!(text, "a text");
                    took
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().expect("the session works")).collect()
    });
    println!("8 sessions at once against a stopped broker: {took:?}");
    assert!(took.iter().all(|took| (SILENCE.mul_f64(0.9)..SOON).contains(took)), "{took:?}");
    assert_eq!(fixture.kms_calls(), (0, 8), "each called KMS itself");

    // From now on nobody waits for it.
    for _ in 0..3 {
        let mut client = fixture.connect();
        let (_, reading) = timed(|| client.decrypt(&value));
        let (_, writing) = timed(|| client.encrypt("a text", &fixture.key_id));
        assert!(reading < AT_ONCE && writing < AT_ONCE, "{reading:?}, {writing:?}");
    }
    assert_eq!(fixture.cluster.log_lines(LINE).len(), 1, "{:?}", fixture.cluster.log_lines(LINE));
    assert!(fixture.cluster.log_lines("ERROR").is_empty() && fixture.cluster.log_lines("WARNING").is_empty());

    // It goes on where it stopped. When the time is up that it is left alone for, it is asked again.
    let broker = fixture.cluster.broker();
    drop(stopped);
    fixture.proxy.reset_counts();
    let started = Instant::now();
    while fixture.proxy.total_calls() == 0 && started.elapsed() < Duration::from_secs(5) {
        fixture.connect().decrypt(&value);
    }
    assert_eq!(fixture.kms_calls().1, 1, "it is left alone for now");
    wait_until("the broker is asked again", || {
        fixture.proxy.reset_counts();
        fixture.connect().decrypt(&value);
        fixture.proxy.total_calls() == 0
    });
    println!("asked again after {:?}", started.elapsed());
    assert_eq!(fixture.cluster.broker(), broker, "it is the same one");
}

#[test]
fn statements_go_on_when_the_broker_stops_in_the_middle_of_their_calls() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let other = fixture.new_key().arn;
    fixture.proxy.set(Rule::every(Fault::Hang).times(1));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut client = fixture.connect();
            timed(|| client.encrypt("a text", &other))
        });
        wait_until("the broker's call hangs", || fixture.proxy.hanging() == 1);
        // It has shown that it lives for a while.
        thread::sleep(Duration::from_millis(600));
        let stopped = Stopped::stop(fixture.cluster.broker());
        let began = Instant::now();
        let (value, took) = waiting.join().expect("the statement goes on");
        println!("stopped in the middle: {:?} after the stop, {took:?} in all", began.elapsed());
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(fixture.connect().decrypt(&value), "a text");
        drop(stopped);
    });
    assert_eq!(fixture.cluster.log_lines(LINE).len(), 1);
}

#[test]
fn a_slow_kms_is_no_hung_broker() {
    let fixture = Fixture::with_broker();
    fixture.proxy.set(Fault::Delay(SILENCE + Duration::from_millis(1_000)));
    let mut client = fixture.connect();
    let (_, took) = timed(|| client.encrypt("a text", &fixture.key_id));
    assert!(took > SILENCE, "{took:?}");
    assert_eq!(fixture.kms_calls(), (1, 0), "it waited for the broker and made no call of its own");
    assert!(fixture.cluster.log_lines(LINE).is_empty());
}

#[test]
fn a_statement_that_waits_for_a_stopped_broker_can_be_ended() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let _stopped = Stopped::stop(fixture.cluster.broker());

    // By its own time limit: which is no reason to leave the broker alone.
    let mut limited = fixture.connect();
    limited.run("SET statement_timeout = '300ms'");
    let (failure, took) = timed(|| limited.fail_to_decrypt(&value));
    failure.with("57014");
    assert!(took < AT_ONCE, "{took:?}");

    let mut witness = fixture.connect();
    for (end, sqlstate) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
        let mut client = fixture.connect();
        let pid = client.backend();
        let statement = thread::spawn({
            let value = value.clone();
            move || client.query("SELECT env_decrypt($1)", &[&value])
        });
        witness.see_waiting(pid);
        let (_, took) = timed(|| {
            witness.run(&format!("SELECT {end}({pid})"));
            expect_end(statement.join().expect("no thread panics"), sqlstate);
        });
        assert!(took < AT_ONCE, "{end}: {took:?}");
    }
    // And the witness goes on.
    assert_eq!(witness.decrypt(&value), "a text");
    let log = fixture.cluster.log();
    assert!(!log.contains("PANIC") && !log.contains("panicked"), "{log}");
}

#[test]
fn monitoring_does_not_hang_with_it() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let _stopped = Stopped::stop(fixture.cluster.broker());
    let mut client = fixture.connect();
    let (result, took) = timed(|| client.query("SELECT env_stat_reset()", &[]));
    assert!(took < SOON, "{took:?}");
    expect_error(result).with("58000");
    // A scrape asks for several views in one go, and within its own time limit.
    let (current, took) = timed(|| client.column::<bool>("SELECT responds FROM env_stat_broker, env_stat_server"));
    println!("env_stat_broker of a broker that hangs: {took:?}");
    assert!(current.iter().all(|responds| !responds), "what it said before, with a warning");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    // The calls of this session itself are shown, with a warning that the others are from before.
    client.run("SET envelope_pg.broker = off");
    client.encrypt("a text", &fixture.key_id);
    let (sources, took) = timed(|| client.column::<String>("SELECT source FROM env_stat_kms"));
    assert!(sources.contains(&"session".to_owned()), "{sources:?}");
    assert!(took < SOON, "{took:?}");
    // What is this session's alone needs no broker.
    client.run("SELECT count(*) FROM env_stat_cache; SELECT env_kms_calls()");
}

#[test]
fn a_base_backup_and_a_reload_do_not_mind_it() {
    let fixture = Fixture::with_broker_and(Cluster::builder().setting("wal_level", "replica"));
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    let _stopped = Stopped::stop(fixture.cluster.broker());
    let standby = fixture.cluster.standby();
    for ending in ["sock", "lock", "launch", "shared"] {
        assert!(fixture.cluster.broker_file(ending).exists(), "{ending} is there");
        assert!(!standby.broker_file(ending).exists(), "{ending} is in the base backup");
    }
    fixture.cluster.reload();
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

#[test]
fn a_rotation_of_data_keys_does_not_need_it() {
    let fixture = Fixture::with_broker();
    let dek_id = |context: &str| -> Vec<u8> {
        let seal = format!("SELECT env_dek_id(env_encrypt('a text'::text, $1, '{context}'))");
        fixture.connect().one(&seal, &[&fixture.key_id])
    };
    let contexts = ["{}", r#"{"a": "b"}"#];
    let before = contexts.map(dek_id);
    let stopped = Stopped::stop(fixture.cluster.broker());
    let (none, took) =
        timed(|| fixture.connect().one::<Option<Vec<u8>>>("SELECT env_rotate_dek($1)", &[&fixture.key_id]));
    assert!(none.is_none() && took < SOON, "{took:?}");
    let rotate = "SELECT env_rotate_dek($1, '{}')";
    let (made, took) = timed(|| fixture.connect().one::<Vec<u8>>(rotate, &[&fixture.key_id]));
    assert!(!before.contains(&made) && took < SOON, "{took:?}");
    drop(stopped);
    // It has heard of that when it is asked again: two sessions have the same data key then.
    wait_until("the time is over for which it is left alone", || {
        // Meanwhile each of them has KMS make a data key of its own.
        thread::sleep(Duration::from_secs(1));
        let of_two = [dek_id("{}"), dek_id("{}")];
        assert!(of_two.iter().all(|dek| !before.contains(dek)), "it is not used any more");
        of_two[0] == of_two[1]
    });
    assert!(!before.contains(&dek_id(contexts[1])));
}
