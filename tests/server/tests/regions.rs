//! Keys of several regions: each is asked in its own, and multi-Region keys in their replicas' when that is out of reach.

use std::thread;
use std::time::{Duration, Instant};

use testkit::emulator::REGION;
use testkit::{Client, Cluster, ClusterBuilder, Emulator, Failure, Fault, Fixture, KmsKey, Rule, Session, wait_until};

/// Where the replicas are.
const REPLICA: &str = "us-east-1";
const OTHER: &str = "eu-central-1";
const TIMEOUT: Duration = Duration::from_secs(2);
/// Past a limit of one second.
const PAST_ONE_SECOND: Duration = Duration::from_millis(1_150);

// All regions have the one endpoint of the proxy, which tells them apart by the signature.
testkit::shared_fixture!(with_failover());

fn with_failover() -> Fixture {
    Fixture::kms_with(failover())
}

fn failover() -> ClusterBuilder {
    Cluster::builder()
        .setting("envelope_pg.kms_timeout", "2s")
        .setting("envelope_pg.kms_max_attempts", "1")
        .setting("envelope_pg.kms_failover_regions", REPLICA)
}

fn in_region(fault: Fault, region: &'static str) -> Rule {
    Rule::every(fault).in_region(region)
}

/// A multi-Region key and its replica.
fn keys() -> (KmsKey, KmsKey) {
    let primary = Emulator::shared().create_multi_region_key();
    let replica = Emulator::shared().create_replica(&primary, REPLICA);
    (primary, replica)
}

/// A name in which the emulator does not find the key's id.
fn alias_for(key: &KmsKey) -> String {
    key.id.replace("mrk-", "alias/of-")
}

fn key_id(client: &mut Client, value: &[u8]) -> String {
    client.one("SELECT env_key_id($1)", &[&value])
}

#[test]
fn a_multi_region_key_goes_on_in_its_replica() {
    // Of its own: it waits much, and the others need not.
    let fixture = with_failover();
    for fault in [Fault::Reset, Fault::Hang] {
        let (primary, replica) = keys();
        let before = fixture.connect().encrypt("before", &primary.arn);
        fixture.proxy.set(in_region(fault.clone(), REGION));
        fixture.proxy.reset_counts();
        let (mut writer, mut reader) = (fixture.connect(), fixture.connect());
        let started = Instant::now();
        let value = writer.encrypt("meanwhile", &primary.arn);
        let (written, started) = (started.elapsed(), Instant::now());
        assert_eq!(key_id(&mut writer, &value), replica.arn);
        assert_eq!(writer.decrypt(&before), "before");
        // The breaker of the region is open now: nobody waits for it.
        let at_once = started.elapsed();
        let started = Instant::now();
        assert_eq!(reader.decrypt(&before), "before");
        let read = started.elapsed();
        println!("{fault:?} in the primary region: written in {written:?}, read in {read:?}, then in {at_once:?}");
        assert!(written < TIMEOUT && read < TIMEOUT && at_once < TIMEOUT / 4);
        assert_eq!(fixture.proxy.calls_in(REPLICA, "GenerateDataKey"), 1);
        assert_eq!(fixture.proxy.calls_in(REPLICA, "Decrypt"), 2);
        assert_eq!(fixture.proxy.calls_in(REGION, "Decrypt"), 1, "the reader's");
        let lines = fixture.cluster.log_lines(&format!("failed over to region {REPLICA} for key {}", primary.arn));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("LOG:")), "one per session: {lines:?}");

        // A key id without a region is that of the settings.
        assert_eq!(fixture.connect().try_encrypt("a text", &primary.id).map(drop), Ok(()));

        fixture.proxy.clear();
        fixture.proxy.reset_counts();
        let mut client = fixture.connect();
        for (value, plaintext) in [(&before, "before"), (&value, "meanwhile")] {
            assert_eq!(client.decrypt(value), plaintext, "each in the region that it names");
        }
        assert_eq!(fixture.proxy.calls_in(REGION, "Decrypt"), 1);
        assert_eq!(fixture.proxy.calls_in(REPLICA, "Decrypt"), 1);
    }
}

#[test]
fn what_was_written_in_a_replica_opens_through_the_primary() {
    let fixture = fixture();
    let _setting = fixture.cluster.set_for_now("envelope_pg.kms_failover_regions", &format!("{REPLICA}, {REGION}"));
    let (primary, replica) = keys();
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &primary.arn);
    assert_eq!(key_id(&mut client, &value), replica.arn);
    fixture.proxy.set(in_region(Fault::Reset, REPLICA));
    fixture.proxy.reset_counts();
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    assert_eq!(fixture.proxy.calls_in(REGION, "Decrypt"), 1);
}

#[test]
fn only_a_multi_region_key_that_is_out_of_reach_fails_over() {
    let fixture = fixture();
    let (primary, _) = keys();
    let value = fixture.connect().encrypt("a text", &primary.arn);
    assert_eq!(key_id(&mut fixture.connect(), &value), primary.arn);
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    fixture.proxy.reset_counts();
    let single = Emulator::shared().create_key();
    let single_alias = Emulator::shared().create_alias("alias/stays", &single);
    for key_id in [fixture.key_id.as_str(), "alias/stays", &single_alias] {
        fixture.connect().fail_to_encrypt(key_id).with("58000").says(key_id);
    }
    // The aliases have no namesake there.
    assert_eq!(fixture.proxy.calls_in(REPLICA, "GenerateDataKey"), 2);
    fixture.proxy.reset_counts();
    for (code, sqlstate) in
        [("ThrottlingException", "53400"), ("AccessDeniedException", "42501"), ("DisabledException", "55000")]
    {
        fixture.proxy.set(in_region(Fault::kms_error(400, code), REGION));
        fixture.connect().fail_to_encrypt(&primary.arn).with(sqlstate).says(code);
        fixture.connect().fail_to_decrypt(&value).with(sqlstate).says(code);
    }
    assert_eq!(fixture.proxy.calls_in(REPLICA, "GenerateDataKey") + fixture.proxy.calls_in(REPLICA, "Decrypt"), 0);
}

/// Encrypts in an encryption context that nobody has used yet.
fn encrypt_in_new_context(client: &mut Client, key_id: &str) -> Vec<u8> {
    try_in_new_context(client, key_id).expect("the alias is known")
}

fn try_in_new_context(client: &mut Client, key_id: &str) -> Result<Vec<u8>, Failure> {
    let query = "SELECT env_encrypt('a text', $1, jsonb_build_object('tenant', gen_random_uuid()::text))";
    client.attempt(query, &[&key_id])
}

/// Whoever has a session from before the outage makes values under the alias, in a new broker too.
fn alias_fails_over(fixture: &Fixture, settings: &str) {
    let (primary, replica) = keys();
    let alias = alias_for(&primary);
    let alias_arn = Emulator::shared().create_alias(&alias, &primary);
    for alias in [&alias, &alias_arn] {
        fixture.proxy.clear();
        let mut client = fixture.connect();
        client.run(settings);
        let mut before = Vec::new();
        wait_until("the alias is resolved in its own region", || {
            before = try_in_new_context(&mut client, alias).unwrap_or_default();
            !before.is_empty() && key_id(&mut client, &before) == primary.arn
        });
        fixture.proxy.set(in_region(Fault::Reset, REGION));
        let value = encrypt_in_new_context(&mut client, alias);
        assert_eq!(key_id(&mut client, &value), replica.arn, "{alias} {settings}");
        client.run("SELECT env_kms_reconnect()");
        let value = encrypt_in_new_context(&mut client, alias);
        assert_eq!(key_id(&mut client, &value), replica.arn, "new clients know, too");
        client.run("SELECT env_broker_stop()");
        let value = encrypt_in_new_context(&mut client, alias);
        assert_eq!(key_id(&mut client, &value), replica.arn, "a new broker is told by the session");
        let mut other = fixture.connect();
        other.run(settings);
        if settings.is_empty() {
            let value = encrypt_in_new_context(&mut other, alias);
            assert_eq!(key_id(&mut other, &value), replica.arn, "and tells sessions that know nothing");
        }
        assert_eq!(other.decrypt(&before), "a text");
    }
}

#[test]
fn an_alias_of_a_multi_region_key_fails_over() {
    let fixture = Fixture::with_broker_and(failover());
    alias_fails_over(&fixture, "");
}

#[test]
fn an_alias_fails_over_without_the_broker() {
    let fixture = fixture();
    alias_fails_over(&fixture, "SET envelope_pg.broker = off");
}

#[test]
fn an_alias_that_nobody_has_resolved_fails_over_to_its_namesake() {
    let fixture = fixture();
    let (primary, replica) = keys();
    let alias = alias_for(&primary);
    let alias_arn = Emulator::shared().create_alias(&alias, &primary);
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    fixture.connect().fail_to_encrypt(&alias).with("58000").says(&alias);
    // The region's breaker is open by now.
    Emulator::shared().create_replica_alias(REPLICA, &alias, &primary);
    for alias in [&alias, &alias_arn] {
        let mut client = fixture.connect();
        let value = client.encrypt("a text", alias);
        assert_eq!(key_id(&mut client, &value), replica.arn);
    }
    // A key of that region alone is not the same key, and its values could be read there only.
    let other = Emulator::shared().create_key_in(REPLICA);
    let single = Emulator::shared().create_key();
    for alias in ["alias/two/keys", "alias/two/names"] {
        Emulator::shared().create_alias(alias, &single);
        Emulator::shared().create_alias_in(REPLICA, alias, &other);
        fixture.connect().fail_to_encrypt(alias).with("58000").says(alias);
    }
}

#[test]
fn an_alias_is_not_believed_for_longer_than_its_data_keys() {
    let fixture = Fixture::with_broker_and(failover());
    let (primary, replica) = keys();
    let alias = alias_for(&primary);
    Emulator::shared().create_alias(&alias, &primary);
    let _setting = fixture.cluster.set_for_now("envelope_pg.dek_max_age", "3s");
    let mut client = fixture.connect();
    client.encrypt("a text", &alias);
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    let value = encrypt_in_new_context(&mut client, &alias);
    assert_eq!(key_id(&mut client, &value), replica.arn);
    wait_until("what the alias stood for is forgotten", || try_in_new_context(&mut client, &alias).is_err());
}

#[test]
fn all_regions_together_have_one_time_limit() {
    // Of its own: it waits much, and the others need not.
    let fixture = with_failover();
    let (primary, _) = keys();
    fixture.proxy.set(Fault::Hang);
    let started = Instant::now();
    let failure = fixture.connect().fail_to_encrypt(&primary.arn).with("58000").says(&primary.arn);
    println!("both regions hang: {:?}, {}", started.elapsed(), failure.detail);
    assert!(started.elapsed() < TIMEOUT + Duration::from_millis(700), "{:?}", started.elapsed());
    assert_eq!((fixture.proxy.calls_in(REGION, "GenerateDataKey"), fixture.proxy.total_calls()), (1, 2));
}

#[test]
fn a_replica_that_does_not_exist_says_nothing_about_the_key() {
    let fixture = fixture();
    let primary = Emulator::shared().create_multi_region_key();
    let mut client = fixture.connect();
    client.run("SET envelope_pg.cache_ttl = '1s'");
    let value = client.encrypt("a text", &primary.arn);
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    client.see_aged(1.0);
    assert_eq!(client.decrypt(&value), "a text", "the outage of the primary region is what counts");
    client.encrypt("a text", &primary.arn);
    assert_eq!(fixture.proxy.calls_in(REPLICA, "Decrypt"), 1, "the replica region was asked");
    fixture.connect().fail_to_decrypt(&value).with("58000").says(&primary.arn);
    fixture.connect().fail_to_encrypt(&primary.arn).with("58000").says(&primary.arn);
}

#[test]
fn a_data_key_that_a_replica_opened_is_asked_for_in_its_own_region_again() {
    // Of its own: it waits much, and the others need not.
    let fixture = with_failover();
    for replica_fault in [Fault::kms_error(400, "NotFoundException"), Fault::Reset] {
        let (primary, _) = keys();
        let value = fixture.connect().encrypt("a text", &primary.arn);
        let mut client = fixture.connect();
        client.run("SET envelope_pg.cache_ttl = '1s'; SET envelope_pg.stale_if_unreachable = 0");
        fixture.proxy.set(in_region(Fault::Reset, REGION));
        assert_eq!(client.decrypt(&value), "a text");
        fixture.proxy.set(in_region(replica_fault.clone(), REPLICA));
        // Past the pause of the primary region's breaker as well.
        thread::sleep(PAST_ONE_SECOND);
        assert_eq!(
            client.try_decrypt(&value).as_deref(),
            Ok("a text"),
            "the value's own region is good: {replica_fault:?}"
        );
    }
}

#[test]
fn allowed_keys_admits_the_replicas_of_its_multi_region_keys() {
    let fixture = fixture();
    let ((primary, replica), (other, _)) = (keys(), keys());
    let value = fixture.connect().encrypt("a text", &primary.arn);
    let other_value = fixture.connect().encrypt("a text", &other.arn);
    for allowed in [&primary.arn, &replica.arn] {
        fixture.proxy.set(in_region(Fault::Reset, REGION));
        let mut client = fixture.connect();
        client.run(&format!("SET envelope_pg.allowed_keys = '{allowed}'"));
        assert_eq!(client.decrypt(&value), "a text");
        let written = client.encrypt("a text", &primary.arn);
        assert_eq!(key_id(&mut client, &written), replica.arn);
        client.fail_to_encrypt(&other.arn).with("42501");
        client.fail_to_decrypt(&other_value).with("42501");
    }
}

#[test]
fn a_key_of_another_region_is_asked_there() {
    let fixture = fixture();
    let other = Emulator::shared().create_key_in(OTHER);
    assert!(other.arn.contains(OTHER));
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &other.arn);
    assert_eq!(key_id(&mut client, &value), other.arn);
    let mut reader = fixture.connect();
    assert_eq!(reader.decrypt(&value), "a text");
    let calls = |operation: &str| (fixture.proxy.calls_in(OTHER, operation), fixture.proxy.calls(operation));
    assert_eq!((calls("GenerateDataKey"), calls("Decrypt")), ((1, 1), (1, 1)));
    reader.fail_to_encrypt(&other.arn.replace(OTHER, REGION)).with("42704");

    // Regions have breakers of their own, and one session uses many.
    fixture.proxy.set(in_region(Fault::Reset, OTHER));
    reader.run("SELECT env_cache_flush()");
    reader.fail_to_decrypt(&value).with("58000");
    reader.fail_to_decrypt(&value).with("58000").says("circuit breaker");
    reader.encrypt("a text", &fixture.key_id);
    fixture.proxy.clear();
    assert_eq!(reader.decrypt_when_back(&value), "a text");
}

#[test]
fn the_primary_region_is_used_again_when_it_is_back() {
    let fixture = fixture();
    let (primary, _) = keys();
    let mut client = fixture.connect();
    let mut key_of_new_value = || {
        client.run("SELECT env_cache_flush()");
        let value = client.encrypt("a text", &primary.arn);
        key_id(&mut client, &value)
    };
    fixture.proxy.set(in_region(Fault::Reset, REGION));
    assert_ne!(key_of_new_value(), primary.arn);
    fixture.proxy.clear();
    wait_until("the primary region is used", || key_of_new_value() == primary.arn);
}

#[test]
fn what_is_no_list_of_regions_is_refused() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run("LOAD 'envelope_pg'");
    for wrong in
        ["us-west-2,", ",", "US-WEST-2", "us west", "us-east-1,,us-west-2", "us-east-1;us-west-2", "a/b", "a.b"]
    {
        let failure = client.fail(&format!("ALTER SYSTEM SET envelope_pg.kms_failover_regions = '{wrong}'"), &[]);
        failure.with("22023").says("envelope_pg.kms_failover_regions").says("list of AWS regions");
    }
    for right in ["", "us-east-1", "us-east-1, us-gov-west-1,cn-north-1"] {
        client.run(&format!("ALTER SYSTEM SET envelope_pg.kms_failover_regions = '{right}'"));
    }
    client.run("ALTER SYSTEM RESET envelope_pg.kms_failover_regions");
    client.fail("SET envelope_pg.kms_failover_regions = 'us-east-1'", &[]).with("55P02");
}
