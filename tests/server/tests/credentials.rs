//! Credentials that KMS refuses while their source has others by now, and certificates that the administrator trusts.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use testkit::{Cluster, Emulator, Fault, FaultProxy, Fixture, Rule, Session, TlsFront, process};

const EXPIRED: Fault = Fault::KmsError { status: 400, code: "ExpiredTokenException" };

/// Writes a file of the server's AWS configuration.
fn write(fixture: &Fixture, name: &str, content: &str) -> PathBuf {
    let directory = fixture.cluster.directory().join(".aws");
    let path = directory.join(name);
    fs::create_dir_all(&directory).expect("the home directory of the server can be written");
    fs::write(&path, content).expect("the file can be written");
    process::give_to_server(&path);
    process::give_to_server(&directory);
    path
}

fn profile(access_key: &str) -> String {
    format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = nobody\n")
}

/// A server that takes its credentials from a profile.
fn with_profile(broker: &str) -> Fixture {
    let builder = Cluster::builder()
        .without_environment("AWS_ACCESS_KEY_ID")
        .without_environment("AWS_SECRET_ACCESS_KEY")
        .setting("envelope_pg.broker", broker);
    let fixture = Fixture::with_broker_and(builder);
    write(&fixture, "credentials", &profile("AKIAOLD"));
    fixture
}

#[test]
fn credentials_that_kms_refuses_are_looked_up_anew() {
    for broker in ["off", "on"] {
        let fixture = with_profile(broker);
        let mut client = fixture.connect();
        let value = client.encrypt("a text", &fixture.key_id);
        fixture.proxy.set(Rule::every(EXPIRED).signed_by("AKIAOLD"));
        write(&fixture, "credentials", &profile("AKIANEW"));
        client.run("SELECT env_cache_flush(true)");
        assert_eq!(client.decrypt(&value), "a text", "broker = {broker}: in the same session, at the first attempt");
    }
}

#[test]
fn credentials_are_not_looked_up_for_each_refusal() {
    let fixture = with_profile("on");
    let mut client = fixture.connect();
    client.encrypt("a text", &fixture.key_id);
    fixture.proxy.set(EXPIRED);
    fixture.proxy.reset_counts();
    let started = Instant::now();
    for n in 0..10 {
        let context = format!("{{\"n\": \"{n}\"}}");
        let failure = client.fail("SELECT env_encrypt('a'::text, $1, $2::text::jsonb)", &[&fixture.key_id, &context]);
        failure.with("58000").says("KMS does not accept them").says("env_kms_reconnect()");
    }
    if started.elapsed() < Duration::from_secs(4) {
        assert_eq!(fixture.proxy.calls("GenerateDataKey"), 11, "one of them twice");
    }
}

#[test]
fn credentials_are_dropped_by_sql() {
    for broker in ["off", "on"] {
        let fixture = with_profile(broker);
        let mut client = fixture.connect();
        let value = client.encrypt("a text", &fixture.key_id);
        // Nothing says that they are no good any more: another role was attached to the instance.
        write(&fixture, "credentials", &profile("AKIANEW"));
        let denied = Fault::kms_error(400, "AccessDeniedException");
        fixture.proxy.set(Rule::every(denied).signed_by("AKIAOLD"));
        client.run("SELECT env_cache_flush(true)");
        client.fail_to_decrypt(&value).with("42501");
        fixture.connect().run("SELECT env_kms_reconnect()");
        assert_eq!(client.decrypt(&value), "a text", "broker = {broker}");
    }
}

#[test]
fn a_source_of_credentials_that_fails_says_so() {
    let metadata = FaultProxy::start(([127, 0, 0, 1], 9).into());
    metadata.set(Fault::Http(500));
    let builder = Cluster::builder()
        .without_environment("AWS_ACCESS_KEY_ID")
        .without_environment("AWS_SECRET_ACCESS_KEY")
        .without_environment("AWS_EC2_METADATA_DISABLED")
        .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    let fixture = Fixture::kms_with(builder);
    let failure = fixture.connect().fail_to_encrypt(&fixture.key_id).with("58000").says("credentials");
    assert!(failure.detail.contains("IMDS"), "{failure:?}");
}

#[test]
fn certificates_of_aws_ca_bundle_and_of_the_profile_are_trusted() {
    let proxy = FaultProxy::start(Emulator::shared().address());
    let front = TlsFront::start(proxy.address());
    let with_variable = Fixture::kms_with(Cluster::builder().environment("AWS_CA_BUNDLE", &front.authority()));
    let with_profile = Fixture::kms();
    let pem = fs::read_to_string(front.authority()).expect("the certificate is there");
    let bundle = write(&with_profile, "ca.pem", "no certificate");
    for fixture in [&with_variable, &with_profile] {
        fixture.cluster.set("envelope_pg.kms_endpoint_url", &front.url());
    }
    let mut client = with_profile.connect();
    let failure = client.fail_to_encrypt(&with_profile.key_id).with("58000").says("UnknownIssuer");
    assert!(failure.hint.contains("AWS_CA_BUNDLE"), "{failure:?}");
    write(&with_profile, "config", &format!("[default]\nca_bundle = {}\n", bundle.display()));
    client.run("SELECT env_kms_reconnect()");
    let failure = client.fail_to_encrypt(&with_profile.key_id).with("58000").says("CA bundle").says("ca.pem");
    assert!(failure.hint.contains("AWS_CA_BUNDLE"), "{failure:?}");
    write(&with_profile, "ca.pem", &pem);
    client.run("SELECT env_kms_reconnect()");
    for fixture in [&with_variable, &with_profile] {
        let value = fixture.connect().encrypt("a text", &fixture.key_id);
        assert_eq!(fixture.connect().decrypt(&value), "a text");
    }
}
