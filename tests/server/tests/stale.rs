//! Sessions with warm caches while KMS comes and goes: data keys serve past their time when KMS cannot be asked, within a
//! bound, and never after it has refused them.

use std::thread;
use std::time::{Duration, Instant};

use testkit::{
    Client, Cluster, Emulator, Failure, Fault, Fixture, Rule, Session, is_reached_within, keep_doing, wait_until,
};

const STALE: &str = "serve past envelope_pg.cache_ttl";
const THROTTLED: Fault = Fault::KmsError { status: 400, code: "ThrottlingException" };

/// One attempt and a short limit: a hung call costs half a second, and all others no wait.
fn fixture() -> Fixture {
    Fixture::kms_with(
        Cluster::builder().setting("envelope_pg.kms_timeout", "500ms").setting("envelope_pg.kms_max_attempts", "1"),
    )
}

fn dek_id(client: &mut Client, key_id: &str) -> Result<Vec<u8>, Failure> {
    client.attempt("SELECT env_dek_id(env_encrypt('a text'::text, $1))", &[&key_id])
}

fn encrypt_in_context(client: &mut Client, key_id: &str, context: &str) -> Vec<u8> {
    let query = "SELECT env_encrypt('a text'::text, $1, jsonb_build_object('context', $2::text))";
    client.one(query, &[&key_id, &context])
}

#[test]
fn an_outage_does_not_stop_a_session_with_a_warm_cache() {
    // `None` is a refused connection.
    let outages = [(None, "58000"), (Some(Fault::Hang), "58000"), (Some(THROTTLED), "53400")];
    thread::scope(|scope| {
        for (fault, sqlstate) in outages {
            scope.spawn(move || good_bad_good(fault.as_ref(), sqlstate));
        }
    });
}

fn good_bad_good(fault: Option<&Fault>, sqlstate: &str) {
    let fixture = fixture();
    let go_bad = || match fault {
        Some(fault) => fixture.proxy.set(fault.clone()),
        None => fixture.proxy.refuse(),
    };
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '2s'; SET envelope_pg.stale_if_unreachable = '1h'");
    let value = client.encrypt("a text", &fixture.key_id);
    let both = |client: &mut Client| {
        let started = Instant::now();
        assert_eq!(client.decrypt(&value), "a text");
        client.encrypt("another text", &fixture.key_id);
        started.elapsed()
    };
    fixture.proxy.reset_counts();
    both(&mut client);
    go_bad();
    both(&mut client);
    assert_eq!(fixture.proxy.total_calls(), 0, "nothing is asked within the time of a data key");

    client.see_aged(2.0);
    let mut slowest = Duration::ZERO;
    keep_doing(Duration::from_millis(1_500), Duration::from_millis(20), || slowest = slowest.max(both(&mut client)));
    let calls = fixture.proxy.total_calls();
    println!("{fault:?}: slowest of a read and a write {slowest:?}, {calls} calls in 1.5 s");
    assert!(slowest < Duration::from_secs(1), "one time limit at most");
    assert!(calls <= 4, "{calls} calls");
    assert_eq!(fixture.cluster.log_lines(STALE).len(), 1, "{:?}", fixture.cluster.log_lines(STALE));

    fixture.proxy.clear();
    wait_until("the end of the outage is seen", || {
        both(&mut client);
        !fixture.cluster.log_lines("outage ended").is_empty()
    });
    // So that nothing stale can serve any more.
    client.run("SET envelope_pg.stale_if_unreachable = 0");
    both(&mut client);

    go_bad();
    client.see_aged(2.0);
    client.fail_to_decrypt(&value).with(sqlstate).says(&fixture.key_id);
    client.fail_to_encrypt(&fixture.key_id).with(sqlstate).says(&fixture.key_id);
    fixture.proxy.clear();
    assert_eq!(client.decrypt_when_back(&value), "a text");
    client.encrypt("a text", &fixture.key_id);
    assert_eq!(fixture.cluster.log_lines(STALE).len(), 1, "once per interval");
}

#[test]
fn staleness_has_a_bound() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = '2s'");
    let started = Instant::now();
    let value = client.encrypt("a text", &fixture.key_id);
    fixture.proxy.set(THROTTLED);
    client.see_aged(1.0);
    let time = Duration::from_millis(2_700).saturating_sub(started.elapsed());
    keep_doing(time, Duration::from_millis(50), || {
        assert_eq!(client.decrypt(&value), "a text");
        client.encrypt("a text", &fixture.key_id);
    });
    client.see_aged(3.0);
    client.fail_to_decrypt(&value).with("53400").says("ThrottlingException");
    client.fail_to_encrypt(&fixture.key_id).with("53400").says("ThrottlingException");
    fixture.proxy.clear();
    assert_eq!(client.decrypt_when_back(&value), "a text");
}

#[test]
fn a_statement_timeout_below_the_time_limit_does_not_keep_a_stale_data_key_from_serving() {
    let fixture = Fixture::kms();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = '1h'");
    let value = client.encrypt("a text", &fixture.key_id);
    fixture.proxy.set(Fault::Hang);
    client.see_aged(1.0);
    client.run("SET statement_timeout = '1200ms'");
    // The first statement finds out that KMS does not answer, if only by being cancelled.
    client.fail_to_decrypt(&value).with("57014");
    // The next one would be cancelled, too, if it waited.
    assert_eq!(client.decrypt(&value), "a text");
}

#[test]
fn a_refused_data_key_is_gone() {
    thread::scope(|scope| {
        for (code, sqlstate) in [
            ("AccessDeniedException", "42501"),
            ("DisabledException", "55000"),
            ("KMSInvalidStateException", "55000"),
            ("NotFoundException", "42704"),
        ] {
            scope.spawn(move || refused(code, sqlstate));
        }
    });
}

/// What KMS answers while a custom key store fails is no refusal, unless it or DescribeKey says that the key is out of use.
#[test]
fn a_custom_key_store_that_fails_serves_stale_until_the_key_is_disabled() {
    let fixture = fixture();
    let key = fixture.new_key();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = '1h'");
    let value = client.encrypt("a text", &key.arn);
    let fault = Fault::KmsMessage {
        status: 400,
        code: "KMSInvalidStateException",
        message: "The external key store proxy did not respond to the request in time. Retry the request.",
    };
    let rule = |operation| Rule::every(fault.clone()).only(operation).for_key(&key.arn);
    fixture.proxy.set_all(vec![rule("Decrypt"), rule("GenerateDataKey")]);
    client.see_aged(1.0);
    fixture.proxy.reset_counts();
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(client.decrypt(&client_encrypts(&mut fixture.connect(), &fixture)), "a text", "other keys go on");
    assert_eq!(fixture.proxy.calls_for(&key.arn, "DescribeKey"), 1);
    let failure = fixture.connect().fail_to_decrypt(&value).with("58000").says("external key store proxy");
    assert!(failure.hint.contains("custom key store"), "{failure:?}");

    Emulator::shared().disable_key(&key);
    wait_until("a probe finds out", || client.try_decrypt(&value).is_err());
    let failure = fixture.connect().fail_to_decrypt(&value).with("55000");
    failure.says("DescribeKey says that its state is Disabled");
    Emulator::shared().enable_key(&key);
    fixture.proxy.clear();
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

fn client_encrypts(client: &mut Client, fixture: &Fixture) -> Vec<u8> {
    client.encrypt("a text", &fixture.key_id)
}

fn refused(code: &'static str, sqlstate: &str) {
    let refusal = match code {
        // It is also what KMS answers while a custom key store fails; then without these words.
        "KMSInvalidStateException" => Fault::KmsMessage { status: 400, code, message: "The key is pending deletion." },
        _ => Fault::kms_error(400, code),
    };
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = '1h'");
    let value = client.encrypt("a text", &fixture.key_id);
    // Another data key of the same key, in another encryption context.
    let other = encrypt_in_context(&mut client, &fixture.key_id, "other");
    fixture.proxy.set(refusal.clone());
    assert_eq!(client.decrypt(&value), "a text", "the data key is fresh");
    client.see_aged(1.0);
    fixture.proxy.reset_counts();
    client.fail_to_decrypt(&value).with(sqlstate).says(&fixture.key_id).says(code);
    assert_eq!(fixture.proxy.calls("Decrypt"), 1, "a refusal is not tried again");

    fixture.proxy.set(Fault::Reset);
    client.fail_to_decrypt(&value).with("58000");
    client.fail_to_encrypt(&fixture.key_id).with("58000");
    // Access can depend on the encryption context.
    let is_of_key = code != "AccessDeniedException";
    if is_of_key {
        client.fail_to_decrypt(&other).with("58000");
    }
    assert!(fixture.cluster.log_lines(STALE).is_empty(), "an outage does not bring it back");
    if !is_of_key {
        assert_eq!(client.decrypt(&other), "a text");
    }
    assert_eq!(fixture.cluster.log_lines("KMS refuses key").len(), 1, "{code}");

    fixture.proxy.clear();
    assert_eq!(client.decrypt_when_back(&value), "a text");
    fixture.proxy.set(refusal.clone());
    // The background refresh is refused while the data key is in use.
    client.run("SET envelope_pg.cache_ttl = '2s'");
    let started = Instant::now();
    let is_in_effect = is_reached_within(Duration::from_millis(2_500), || {
        client.try_decrypt(&value).map_err(|failure| failure.with(sqlstate)).is_err()
    });
    assert!(is_in_effect, "{code} has no effect after the data key's time");
    println!("{code} in effect after {:?} with a cache_ttl of 2 s", started.elapsed());
}

#[test]
fn whatever_call_was_refused_no_outage_brings_data_keys_of_that_key_back() {
    let fixture = fixture();
    let disabled = Fault::kms_error(400, "DisabledException");
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = '1h'");
    let value = client.encrypt("a text", &fixture.key_id);
    let unknown = encrypt_in_context(&mut fixture.connect(), &fixture.key_id, "unknown to this session");
    fixture.proxy.set(disabled);
    client.fail_to_decrypt(&unknown).with("55000");
    fixture.proxy.set(Fault::Reset);
    client.see_aged(1.0);
    client.fail_to_decrypt(&value).with("58000");
}

#[test]
fn a_key_that_was_refused_for_a_new_data_key_seals_nothing_in_an_outage() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.dek_max_age = '1s'");
    client.encrypt("a text", &fixture.key_id);
    fixture.proxy.set(Fault::kms_error(400, "DisabledException"));
    client.see_aged(1.2);
    client.fail_to_encrypt(&fixture.key_id).with("55000");
    fixture.proxy.set(Fault::Reset);
    client.fail_to_encrypt(&fixture.key_id).with("58000");
}

#[test]
fn a_role_that_may_only_write_goes_on_with_new_data_keys() {
    let fixture = fixture();
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).only("Decrypt"));
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'");
    let first = dek_id(&mut client, &fixture.key_id).expect("a data key");
    client.see_aged(1.0);
    assert_ne!(dek_id(&mut client, &fixture.key_id).expect("a new data key"), first);
    assert_eq!((fixture.proxy.calls("GenerateDataKey"), fixture.proxy.calls("Decrypt")), (2, 1));
    // And with the refusals in the background.
    keep_doing(Duration::from_millis(2_500), Duration::from_millis(20), || {
        client.encrypt("a text", &fixture.key_id);
    });
    let generated = fixture.proxy.calls("GenerateDataKey");
    assert!((4..=8).contains(&generated), "{generated} data keys");
    assert_eq!(fixture.cluster.log_lines("KMS refuses key").len(), 1, "once per interval");
}

#[test]
fn an_outage_prolongs_the_age_of_a_data_key() {
    let fixture = fixture();
    let mut client = fixture.connect();
    // Past dek_max_age, but within the time in which KMS need not be asked.
    client.run("SET envelope_pg.dek_max_age = '1s'; SET envelope_pg.stale_if_unreachable = 0");
    let first = dek_id(&mut client, &fixture.key_id).expect("a data key");
    for (fault, age) in [(Fault::Reset, 1.2), (THROTTLED, 2.4)] {
        fixture.proxy.set(fault);
        client.see_aged(age);
        for _ in 0..3 {
            assert_eq!(dek_id(&mut client, &fixture.key_id).expect("the old data key"), first);
        }
    }
    fixture.proxy.clear();
    wait_until("there is a new data key", || dek_id(&mut client, &fixture.key_id).expect("a data key") != first);
}
