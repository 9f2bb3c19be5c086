//! The circuit breakers of a session, the cap on calls of a statement, and what both leave in the server's log.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::{Client, Cluster, Emulator, Failure, Fault, Fixture, Rule, Session, keep_doing, wait_until};

const BREAKER: &str = "circuit breaker";
const INTERNAL: Fault = Fault::KmsError { status: 500, code: "KMSInternalException" };
const THROTTLED: Fault = Fault::KmsError { status: 400, code: "ThrottlingException" };

/// That of a call.
const TIME_LIMIT: Duration = Duration::from_secs(1);

fn fixture() -> Fixture {
    Fixture::kms_with(
        Cluster::builder().setting("envelope_pg.kms_timeout", "1s").setting("envelope_pg.kms_max_attempts", "1"),
    )
}

/// Checks that a statement fails without a call.
#[track_caller]
fn refused_by_breaker(fixture: &Fixture, statement: impl FnOnce() -> Failure) -> Failure {
    let (calls, started) = (fixture.proxy.total_calls(), Instant::now());
    let failure = statement().says(BREAKER);
    assert!(started.elapsed() < TIME_LIMIT, "it waited: {:?}", started.elapsed());
    assert_eq!(fixture.proxy.total_calls(), calls, "{failure:?}");
    failure
}

#[test]
fn after_a_failure_statements_fail_at_once_until_a_probe_succeeds() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    for (fault, sqlstate) in [(Fault::Reset, "58000"), (Fault::Hang, "58000"), (THROTTLED, "53400")] {
        let mut client = fixture.connect();
        fixture.proxy.set(fault.clone());
        fixture.proxy.reset_counts();
        client.fail_to_decrypt(&value).with(sqlstate).says("1 attempt;");
        // Few: it opens for half a second to a second, and then lets one call through.
        for _ in 0..3 {
            let failure = refused_by_breaker(&fixture, || client.fail_to_decrypt(&value)).with(sqlstate);
            assert!(failure.detail.contains(&fixture.key_id) && !failure.hint.is_empty(), "{failure:?}");
            refused_by_breaker(&fixture, || client.fail_to_encrypt(&fixture.key_id)).with(sqlstate);
        }
        assert_eq!(fixture.proxy.total_calls(), 1, "{fault:?}");
        fixture.connect().fail_to_decrypt(&value).with(sqlstate).says("1 attempt;");

        fixture.proxy.reset_counts();
        let opened = Instant::now();
        wait_until("a probe is made", || {
            client.fail_to_decrypt(&value).with(sqlstate);
            fixture.proxy.total_calls() > 0
        });
        println!("{fault:?}: first probe after {:?}", opened.elapsed());
        assert!(opened.elapsed() < Duration::from_millis(2_500), "{:?}", opened.elapsed());
        refused_by_breaker(&fixture, || client.fail_to_decrypt(&value)).with(sqlstate);
        assert_eq!(fixture.proxy.total_calls(), 1, "{fault:?}");

        fixture.proxy.clear();
        assert_eq!(client.decrypt_when_back(&value), "a text", "{fault:?}");
        client.encrypt("closed for all", &fixture.key_id);
    }
}

#[test]
fn many_statements_against_a_hanging_endpoint_do_not_wait_a_limit_each() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.proxy.set(Fault::Hang);
    fixture.proxy.reset_counts();
    let mut client = fixture.connect();
    let started = Instant::now();
    for _ in 0..200 {
        client.fail_to_decrypt(&value).with("58000");
    }
    println!("200 failing decrypts: {:?}, {} calls", started.elapsed(), fixture.proxy.total_calls());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(fixture.proxy.total_calls() <= 3, "{} calls", fixture.proxy.total_calls());

    // Pauses between probes grow, so that a long outage costs little.
    let mut client = fixture.connect();
    fixture.proxy.set(Fault::Reset);
    fixture.proxy.reset_counts();
    keep_doing(Duration::from_secs(3), Duration::from_millis(5), || {
        client.fail_to_decrypt(&value).with("58000");
    });
    let calls = fixture.proxy.total_calls();
    assert!((2..=4).contains(&calls), "{calls} calls in 3 s");
}

#[test]
fn trouble_with_one_key_does_not_stop_another() {
    let fixture = fixture();
    let other = fixture.new_key().arn;
    let mut writer = fixture.connect();
    let (value, other_value) = (writer.encrypt("a text", &fixture.key_id), writer.encrypt("another text", &other));
    for (fault, sqlstate) in [(INTERNAL, "58000"), (THROTTLED, "53400")] {
        fixture.proxy.set(Rule::every(fault.clone()).for_key(&fixture.key_id));
        let mut client = fixture.connect();
        client.fail_to_decrypt(&value).with(sqlstate);
        refused_by_breaker(&fixture, || client.fail_to_decrypt(&value)).with(sqlstate);
        assert_eq!(client.decrypt(&other_value), "another text", "{fault:?}");
        client.encrypt("a text", &other);
        refused_by_breaker(&fixture, || client.fail_to_encrypt(&fixture.key_id)).with(sqlstate);
    }
    // Who cannot be reached cannot be asked about any key.
    fixture.proxy.set(Rule::every(Fault::Reset).for_key(&fixture.key_id));
    let mut client = fixture.connect();
    client.fail_to_decrypt(&value).with("58000");
    refused_by_breaker(&fixture, || client.fail_to_decrypt(&other_value)).with("58000");
}

#[test]
fn a_cancelled_probe_leaves_the_next_one_free() {
    let fixture = fixture();
    let mut client = fixture.connect();
    fixture.proxy.set(Fault::Reset);
    client.fail_to_encrypt(&fixture.key_id).with("58000");
    fixture.proxy.set(Fault::Hang);
    client.run("SET statement_timeout = '100ms'");
    wait_until("a probe hangs, and is cancelled", || client.fail_to_encrypt(&fixture.key_id).sqlstate == "57014");
    client.run("SET statement_timeout = 0");
    fixture.proxy.clear();
    client.encrypt("a text", &fixture.key_id);
}

/// A table with values under five data keys.
fn five_data_keys(fixture: &Fixture) {
    let mut client = fixture.connect();
    client.run("CREATE TABLE five (value bytea)");
    let insert = "INSERT INTO five SELECT env_encrypt('a text'::text, $1, jsonb_build_object('n', n::text))
                  FROM generate_series(1, 5) AS n, generate_series(1, 4)";
    client.execute(insert, &[&fixture.key_id]).expect("the rows are encrypted");
}

#[test]
fn a_statement_makes_no_more_calls_than_it_may() {
    let fixture = fixture();
    five_data_keys(&fixture);
    let scan = "SELECT count(env_decrypt(value)) FROM five";
    let capped = |cap: i32| -> Client {
        let mut client = fixture.connect();
        client.run(&format!("SET envelope_pg.max_kms_calls_per_statement = {cap}"));
        fixture.proxy.reset_counts();
        client
    };
    let mut client = capped(3);
    client.fail(scan, &[]).with("54000").says("The limit is 3.").says("envelope_pg.max_kms_calls_per_statement");
    assert_eq!(fixture.proxy.total_calls(), 3);
    assert_eq!(client.one::<i64>(scan, &[]), 20, "the next statement has three calls of its own");
    assert_eq!(fixture.proxy.total_calls(), 5);
    for cap in [5, 0] {
        assert_eq!(capped(cap).one::<i64>(scan, &[]), 20);
        assert_eq!(fixture.proxy.total_calls(), 5);
    }
    let mut client = capped(1);
    client.run("SET envelope_pg.dek_max_uses = 1");
    let insert = "INSERT INTO five SELECT env_encrypt('a text'::text, $1) FROM generate_series(1, 2)";
    client.fail(insert, &[&fixture.key_id]).with("54000");
}

#[test]
fn calls_that_a_breaker_prevents_do_not_count() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.dek_max_uses = 1; SET envelope_pg.max_kms_calls_per_statement = 3");
    client.encrypt("a text", &fixture.key_id);
    fixture.proxy.set(Fault::Reset);
    fixture.proxy.reset_counts();
    // The data key is spent, and serves on as no new one can be had: one call finds that out.
    let sealed = "SELECT count(env_encrypt('row ' || n, $1)) FROM generate_series(1, 50) AS n";
    assert_eq!(client.one::<i64>(sealed, &[&fixture.key_id]), 50);
    assert_eq!(fixture.proxy.total_calls(), 1);
}

#[test]
fn the_log_has_a_line_for_each_change_and_no_secret() {
    const PLAINTEXT: &str = "nothing-that-a-log-may-have";
    let fixture = fixture();
    let mut client = fixture.connect();
    let value = client.encrypt(PLAINTEXT, &fixture.key_id);
    let mut reader = fixture.connect();
    reader.run("SET envelope_pg.cache_ttl = '1s'");
    for _ in 0..2 {
        reader.run("SELECT env_cache_flush()");
        fixture.proxy.set(Fault::Reset);
        for _ in 0..5 {
            reader.fail_to_decrypt(&value).with("58000");
        }
        fixture.proxy.clear();
        assert_eq!(reader.decrypt_when_back(&value), PLAINTEXT);
    }
    let asks = |fixture: &Fixture, reader: &mut Client| {
        fixture.proxy.reset_counts();
        wait_until("KMS is asked, when the value's time and the breaker's pause are over", || {
            let _ = reader.try_decrypt(&value);
            fixture.proxy.total_calls() > 0
        });
    };
    for fault in [THROTTLED, Fault::kms_error(400, "DisabledException")] {
        fixture.proxy.set(fault);
        asks(&fixture, &mut reader);
        reader.fail("SELECT env_decrypt($1 || '\\x00')", &[&value]);
        fixture.proxy.clear();
        asks(&fixture, &mut reader);
        reader.decrypt_when_back(&value);
    }
    let pid = format!("[{}]", reader.backend());
    let key = format!("key {} in region us-west-2", fixture.key_id);
    let refused = format!("KMS refuses key {} (DisabledException)", fixture.key_id);
    for line in [
        "KMS outage began for region us-west-2",
        "KMS outage ended for region us-west-2",
        &format!("KMS outage began for {key}"),
        &format!("KMS outage ended for {key}"),
        &refused,
    ] {
        let lines = fixture.cluster.log_lines(line);
        assert_eq!(lines.len(), 1, "{line}: {lines:?}\n{}", fixture.cluster.log());
        assert!(lines[0].contains("LOG:") && lines[0].contains(&pid), "{lines:?}");
    }

    let wrapped: String = client.one("SELECT encode((env_inspect($1)).wrapped_dek, 'base64')", &[&value]);
    let wrapped = wrapped.replace('\n', "");
    let input = json!({ "CiphertextBlob": wrapped, "EncryptionContext": { "envelope_pg": "v1" } });
    let answer = Emulator::shared().call("Decrypt", &input).expect("it opens");
    let dek = answer["Plaintext"].as_str().expect("base64").to_owned();
    let log = fixture.cluster.log();
    assert!(!log.contains(PLAINTEXT));
    for secret in [wrapped, dek] {
        let hex: String = client.one("SELECT encode(decode($1, 'base64'), 'hex')", &[&secret]);
        assert!(!log.contains(&secret[..16]) && !log.contains(&hex[..16]), "a data key is in the log");
    }
}
