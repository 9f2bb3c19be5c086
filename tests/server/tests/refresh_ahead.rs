//! Data keys are asked for again in the background before their time is up, so that no statement waits for KMS.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{Client, Fault, Fixture, Rule, Session, keep_doing};

/// With a `cache_ttl` of 5 s a refresh begins 0.39 s before the end at the latest: more than this, which whoever waits takes at least.
const DELAY: Duration = Duration::from_millis(200);
const TIME: Duration = Duration::from_secs(10);

/// Runs a statement again and again; returns how long the slowest one took.
fn slowest(client: &mut Client, statement: impl Fn(&mut Client)) -> Duration {
    let mut slowest = Duration::ZERO;
    keep_doing(TIME, Duration::from_millis(20), || {
        let before = Instant::now();
        statement(client);
        slowest = slowest.max(before.elapsed());
    });
    slowest
}

#[test]
fn no_statement_waits_in_steady_state() {
    let fixture = Fixture::kms();
    let (read_key, written_key) = (fixture.new_key().arn, fixture.new_key().arn);
    let (mut reader, mut writer) = (fixture.connect(), fixture.connect());
    let value = reader.encrypt("a text", &read_key);
    writer.encrypt("a text", &written_key);
    for client in [&mut reader, &mut writer] {
        client.run("SET envelope_pg.cache_ttl = '5s'");
    }
    fixture.proxy.set(Rule::every(Fault::Delay(DELAY)).only("Decrypt"));
    fixture.proxy.reset_counts();
    let (read, written) = thread::scope(|scope| {
        let read = scope.spawn(|| slowest(&mut reader, |client| assert_eq!(client.decrypt(&value), "a text")));
        let written = slowest(&mut writer, |client| drop(client.encrypt("a text", &written_key)));
        (read.join().expect("the statement's thread does not panic"), written)
    });
    for (what, slowest, key) in [("read", read, &read_key), ("write", written, &written_key)] {
        let calls = fixture.proxy.calls_for(key, "Decrypt");
        println!("slowest {what} in {TIME:?}: {slowest:?}, with {calls} Decrypt calls of {DELAY:?}");
        assert!(slowest < DELAY, "{what}: {slowest:?}");
        assert!((2..=3).contains(&calls), "{what}: {calls} calls");
    }
    assert_eq!(fixture.proxy.calls("GenerateDataKey"), 0, "the same data key is asked for again");
}

/// Whatever a statement causes counts to it, and its limit holds for that.
#[test]
fn refreshes_count_as_calls_of_the_statement_that_caused_them() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    client.run("CREATE TEMP TABLE kept (value bytea)");
    client
        .execute("INSERT INTO kept SELECT env_encrypt('a text'::text, $1)", &[&fixture.key_id])
        .expect("the row is encrypted");
    fixture.proxy.reset_counts();
    let long_statement = "DO $$
         DECLARE started timestamptz := clock_timestamp();
         BEGIN
             WHILE clock_timestamp() < started + interval '4.5 s' LOOP
                 PERFORM env_decrypt(value) FROM kept;
                 PERFORM pg_sleep(0.02);
             END LOOP;
         END $$";
    client.run("SET envelope_pg.cache_ttl = '2s'; SET envelope_pg.max_kms_calls_per_statement = 4");
    client.run(long_statement);
    let calls = fixture.proxy.calls("Decrypt");
    assert!((2..=4).contains(&calls), "one statement, {calls} calls in the background");
    client.run("SET envelope_pg.max_kms_calls_per_statement = 1");
    fixture.proxy.reset_counts();
    client.fail(long_statement, &[]).with("54000");
    assert_eq!(fixture.proxy.calls("Decrypt"), 1);
}
