//! `env_cache_flush(everywhere => true)`: every session and the broker ask KMS again before they serve another value.

use std::thread;
use std::time::Duration;

use testkit::{Client, Cluster, Fault, Fixture, Rule, Session, wait_until};

const EVERYWHERE: &str = "SELECT env_cache_flush(everywhere => true)";

fn flush_everywhere(client: &mut Client) -> i32 {
    client.one(EVERYWHERE, &[])
}

#[test]
fn with_the_broker_the_first_use_after_it_asks_kms() {
    let fixture = Fixture::with_broker();
    let (mut one, mut two, mut three) = (fixture.connect(), fixture.connect(), fixture.connect());
    let value = one.encrypt("a text", &fixture.key_id);
    two.decrypt(&value);
    three.decrypt(&value);
    assert_eq!(fixture.kms_calls(), (1, 0));
    for _ in 0..3 {
        fixture.proxy.reset_counts();
        assert!(flush_everywhere(&mut one) >= 1, "it had the value's data key");
        assert_eq!(two.decrypt(&value), "a text");
        assert_eq!(fixture.kms_calls(), (0, 1), "the broker has asked for two");
        three.decrypt(&value);
        one.decrypt(&value);
        assert_eq!(fixture.kms_calls(), (0, 1), "and has it for the others");
        let first: Vec<u8> = two.encrypt("a text", &fixture.key_id);
        assert_eq!(fixture.kms_calls(), (1, 1), "the current data key went, too");
        let again: Vec<u8> = one.encrypt("a text", &fixture.key_id);
        assert!(one.one::<bool>("SELECT env_dek_id($1) = env_dek_id($2)", &[&first, &again]));
        two.decrypt(&value);
    }
}

#[test]
fn with_the_broker_a_revoked_key_is_out_of_use_at_once() {
    let fixture = Fixture::with_broker();
    let mut sessions = [fixture.connect(), fixture.connect(), fixture.connect()];
    let value = sessions[0].encrypt("a text", &fixture.key_id);
    for session in &mut sessions {
        session.decrypt(&value);
        session.encrypt("a text", &fixture.key_id);
    }
    for (code, sqlstate) in [("AccessDeniedException", "42501"), ("DisabledException", "55000")] {
        fixture.proxy.set(Fault::kms_error(400, code));
        flush_everywhere(&mut fixture.connect());
        for session in &mut sessions {
            session.fail_to_decrypt(&value).with(sqlstate);
            session.fail_to_encrypt(&fixture.key_id).with(sqlstate);
        }
        fixture.proxy.clear();
        for session in &mut sessions {
            session.decrypt(&value);
            session.encrypt("a text", &fixture.key_id);
        }
    }
}

#[test]
fn without_the_broker_it_reaches_all_sessions() {
    let fixture = Fixture::kms();
    let mut sessions = [fixture.connect(), fixture.connect(), fixture.connect()];
    let value = sessions[0].encrypt("a text", &fixture.key_id);
    for session in &mut sessions {
        session.decrypt(&value);
    }
    fixture.proxy.reset_counts();
    sessions[1].run(EVERYWHERE);
    for (number, session) in sessions.iter_mut().enumerate() {
        session.decrypt(&value);
        session.decrypt(&value);
        assert_eq!(fixture.kms_calls(), (0, number + 1));
    }
    // In the middle of a statement, too.
    fixture.proxy.reset_counts();
    sessions[0].run("SELECT count(env_decrypt(value)) FROM (SELECT '\\x'::bytea AS value LIMIT 0) AS none");
    let query = "SELECT env_decrypt($1), env_cache_flush(true), env_decrypt($1)";
    sessions[0].query_one(query, &[&value]).expect("it works");
    assert_eq!(fixture.kms_calls(), (0, 1));
}

/// What was asked before the flush must not come to those who ask after it, nor stay.
#[test]
fn a_call_that_was_under_way_is_not_shared_with_those_who_come_after() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    flush_everywhere(&mut fixture.connect());
    fixture.proxy.reset_counts();
    fixture.proxy.set(Rule::every(Fault::Delay(Duration::from_millis(900))).times(1));
    thread::scope(|scope| {
        let early = scope.spawn(|| fixture.connect().decrypt(&value));
        wait_until("the first call is under way", || fixture.kms_calls().1 == 1);
        flush_everywhere(&mut fixture.connect());
        assert_eq!(fixture.connect().decrypt(&value), "a text");
        assert_eq!(fixture.kms_calls(), (0, 2), "whoever asks after the flush has KMS asked again");
        assert_eq!(early.join().expect("no thread panics"), "a text");
    });
    fixture.connect().decrypt(&value);
    assert_eq!(fixture.kms_calls(), (0, 2), "the later answer is kept");
}

#[test]
fn a_new_data_key_that_was_under_way_is_not_current_after_it() {
    let fixture = Fixture::with_broker();
    fixture.proxy.set(Rule::every(Fault::Delay(Duration::from_millis(900))).times(1));
    let dek_id = |client: &mut Client| -> Vec<u8> {
        client.one("SELECT env_dek_id(env_encrypt('a text'::text, $1))", &[&fixture.key_id])
    };
    thread::scope(|scope| {
        let early = scope.spawn(|| dek_id(&mut fixture.connect()));
        wait_until("the first call is under way", || fixture.kms_calls().0 == 1);
        flush_everywhere(&mut fixture.connect());
        let after = dek_id(&mut fixture.connect());
        assert_eq!(fixture.kms_calls(), (2, 0), "whoever asks after the flush has a new one made");
        early.join().expect("no thread panics");
        assert_eq!(dek_id(&mut fixture.connect()), after, "which is the current one");
    });
}

/// A scan that runs meanwhile asks again with its next value.
#[test]
fn a_scan_that_is_under_way_asks_again() {
    let fixture = Fixture::with_broker();
    let mut writer = fixture.connect();
    writer.run("CREATE TABLE scanned (id int, value bytea)");
    let insert = "INSERT INTO scanned SELECT id, env_encrypt('a', $1) FROM generate_series(1, 40) AS id";
    writer.execute(insert, &[&fixture.key_id]).expect("the rows are written");
    flush_everywhere(&mut writer);
    fixture.proxy.reset_counts();
    thread::scope(|scope| {
        let scan = scope.spawn(|| {
            let slow =
                "SELECT count(env_decrypt(value)) FROM (SELECT value, pg_sleep(0.02) FROM scanned OFFSET 0) AS s";
            fixture.connect().one::<i64>(slow, &[])
        });
        wait_until("the scan is under way", || fixture.kms_calls().1 == 1);
        flush_everywhere(&mut fixture.connect());
        assert_eq!(scan.join().expect("no thread panics"), 40);
    });
    assert_eq!(fixture.kms_calls(), (0, 2));
}

#[test]
fn a_hung_broker_does_not_hinder_it() {
    let fixture = Fixture::with_broker_and(Cluster::builder());
    let mut session = fixture.connect();
    let value = session.encrypt("a text", &fixture.key_id);
    let stopped = testkit::Stopped::stop(fixture.cluster.broker());
    let started = std::time::Instant::now();
    flush_everywhere(&mut fixture.connect());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    fixture.proxy.reset_counts();
    assert_eq!(session.decrypt(&value), "a text");
    assert_eq!(fixture.kms_calls(), (0, 1), "its own call, since the broker hangs");
    drop(stopped);
}

/// The file through which processes hear of flushes is removed, or replaced, while they have it mapped.
#[test]
fn a_flush_reaches_all_when_somebody_has_removed_the_file_of_the_counters() {
    for with_broker in [true, false] {
        let fixture = if with_broker { Fixture::with_broker() } else { Fixture::kms() };
        let (mut before, mut telling) = (fixture.connect(), fixture.connect());
        let value = before.encrypt("a text", &fixture.key_id);
        assert_eq!(before.decrypt(&value), "a text");
        assert_eq!(telling.decrypt(&value), "a text");
        let file = fixture.cluster.broker_file("shared");
        std::fs::remove_file(&file).expect("root may");
        // One that has never seen the file that was removed.
        let mut after = fixture.connect();
        assert_eq!(after.decrypt(&value), "a text");
        assert!(file.exists(), "there is another one");
        for telling in [&mut telling, &mut after] {
            // Within a second the others look whether theirs is still there.
            thread::sleep(Duration::from_millis(2_500));
            before.decrypt(&value);
            flush_everywhere(telling);
            fixture.proxy.reset_counts();
            assert_eq!(before.decrypt(&value), "a text");
            assert_eq!(fixture.kms_calls(), (0, 1), "it has heard of it");
        }
        // Without waiting for anything: who tells looks, too.
        std::fs::remove_file(&file).expect("root may");
        flush_everywhere(&mut telling);
        fixture.proxy.reset_counts();
        assert_eq!(before.decrypt(&value), "a text");
        assert_eq!(fixture.kms_calls(), (0, 1), "it has the file that was removed, as the one who told");
    }
}
