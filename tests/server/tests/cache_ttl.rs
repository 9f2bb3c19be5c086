//! A key with a `cache_ttl` of its own: how often KMS is asked about its data keys, and how soon it may say no.

use std::thread;
use std::time::Duration;

use testkit::{Client, Cluster, Fault, Fixture, Rule, Session};

/// Longer than a `cache_ttl` of one second.
const PAST_A_SECOND: Duration = Duration::from_millis(1_300);

fn with_ttl(ttl: &str) -> Fixture {
    Fixture::with_broker_and(Cluster::builder().setting("envelope_pg.cache_ttl", ttl))
}

/// Names a key; the options say more of it.
fn name(fixture: &Fixture, name: &str, key: &str, options: &str) {
    fixture
        .cluster
        .sql(&format!("CREATE SERVER {name} FOREIGN DATA WRAPPER envelope_pg OPTIONS (key_id '{key}'{options})"));
}

fn decrypts(fixture: &Fixture) -> usize {
    fixture.proxy.calls("Decrypt")
}

/// New sessions and one that stays read a value for some seconds.
fn read_on(fixture: &Fixture, client: &mut Client, value: &[u8]) -> usize {
    fixture.proxy.reset_counts();
    for _ in 0..3 {
        thread::sleep(PAST_A_SECOND);
        assert_eq!(client.decrypt(value), "a text");
        assert_eq!(fixture.connect().decrypt(value), "a text");
    }
    decrypts(fixture)
}

#[test]
fn a_longer_one_makes_fewer_calls() {
    let fixture = with_ttl("1s");
    let [calm, busy] = [(); 2].map(|()| fixture.new_key().arn);
    name(&fixture, "calm", &calm, ", cache_ttl '1h'");
    let mut client = fixture.connect();
    let [calm, busy] = [calm, busy].map(|key| client.encrypt("a text", &key));
    assert!(read_on(&fixture, &mut client, &busy) >= 3, "once in a second");
    assert_eq!(read_on(&fixture, &mut client, &calm), 0, "not once in an hour");
    // Whatever name, and as long as it says so.
    let ttl = "SELECT max(ttl_seconds) FROM env_stat_cache";
    assert!(client.one::<f64>(ttl, &[]) > 3_000.0);
    fixture.cluster.sql("DROP SERVER calm");
    assert!(read_on(&fixture, &mut client, &calm) >= 3);
}

#[test]
fn a_shorter_one_has_kms_say_no_sooner() {
    let fixture = with_ttl("1h");
    let key = fixture.new_key().arn;
    name(&fixture, "strict", &key, ", cache_ttl '1s'");
    name(&fixture, "same_key", &key, ", cache_ttl '1d'");
    let mut client = fixture.connect();
    let value = client.encrypt("a text", "key:strict");
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).for_key(&key));
    thread::sleep(PAST_A_SECOND);
    // A session that asks the broker for the first time is not content with what that has.
    fixture.connect().fail_to_decrypt(&value).with("42501");
    client.fail_to_decrypt(&value).with("42501");
    client.fail_to_encrypt("key:same_key").with("42501");
}

#[test]
fn a_change_counts_from_the_next_value_on_in_all_sessions() {
    let fixture = with_ttl("1h");
    let key = fixture.new_key().arn;
    name(&fixture, "changed", &key, "");
    let mut client = fixture.connect();
    let mut other = fixture.connect();
    let value = client.encrypt("a text", "key:changed");
    assert_eq!(other.decrypt(&value), "a text");
    thread::sleep(PAST_A_SECOND);
    fixture.proxy.reset_counts();
    assert_eq!(other.decrypt(&value), "a text");
    assert_eq!(decrypts(&fixture), 0);
    fixture.cluster.sql("ALTER SERVER changed OPTIONS (ADD cache_ttl '1s')");
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).for_key(&key));
    other.fail_to_decrypt(&value).with("42501");
    client.fail_to_encrypt("key:changed").with("42501");
    let refused = client.fail("ALTER SERVER changed OPTIONS (SET cache_ttl '2d')", &[]);
    refused.with("HV00D").says("cache_ttl");
}

/// A statement that names the key in another way does not know its time before it is answered.
#[test]
fn it_holds_for_a_session_that_names_the_key_in_another_way() {
    let fixture = with_ttl("1h");
    let key = fixture.new_key();
    name(&fixture, "by_arn", &key.arn, ", cache_ttl '1s'");
    fixture.connect().encrypt("a text", &key.id);
    thread::sleep(PAST_A_SECOND);
    fixture.proxy.reset_counts();
    fixture.connect().encrypt("a text", &key.id);
    assert_eq!(fixture.kms_calls(), (0, 1), "what the broker has is too old");
    thread::sleep(PAST_A_SECOND);
    fixture.proxy.set(Fault::kms_error(400, "AccessDeniedException"));
    fixture.connect().fail_to_encrypt(&key.id).with("42501");
}
