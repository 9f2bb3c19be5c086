//! Credentials that KMS refuses while their source has others by now, and certificates that the administrator trusts.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use testkit::{
    Cluster, ClusterBuilder, Emulator, Fault, FaultProxy, Fixture, Rule, Session, TlsFront, is_reached_within, process,
};

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
    // The SDK asks four times, with pauses of up to 7 s in all: longer than an attempt of the default of 10 s may take.
    let builder = without_credentials()
        .setting("envelope_pg.kms_timeout", "60s")
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

/// A server without credentials of its own.
fn without_credentials() -> ClusterBuilder {
    Cluster::builder().without_environment("AWS_ACCESS_KEY_ID").without_environment("AWS_SECRET_ACCESS_KEY")
}

#[test]
fn a_container_s_credentials_come_back_without_a_restart() {
    let service = FaultProxy::start(([127, 0, 0, 1], 9).into());
    let builder = without_credentials()
        .setting("envelope_pg.kms_timeout", "4s")
        .environment("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/credentials", service.url()));
    for broker in ["off", "on"] {
        let fixture = Fixture::with_broker_and(builder.clone().setting("envelope_pg.broker", broker));
        let mut client = fixture.connect();
        for fault in [Fault::Http(500), Fault::Reset, Fault::Answer("{}".into()), Fault::Answer("<html>".into())] {
            service.set(fault.clone());
            // One that breaks off is tried again, and may use up the time: then the circuit breaker is open for up to 30 s.
            let is_said = is_reached_within(Duration::from_secs(90), || {
                let failure = client.fail_to_encrypt(&fixture.key_id).with("58000");
                fault == Fault::Reset || failure.text().contains("credentials")
            });
            assert!(is_said, "the error is not about credentials");
        }
        let expiration = "2199-01-01T00:00:00Z";
        service.set(Fault::Answer(format!(
            "{{\"AccessKeyId\": \"AKIACONTAINER\", \"SecretAccessKey\": \"nobody\", \"Token\": \"t\", \"Expiration\": \"{expiration}\"}}"
        )));
        let are_there =
            is_reached_within(Duration::from_secs(90), || client.try_encrypt("a text", &fixture.key_id).is_ok());
        assert!(are_there, "no credentials");
    }
}

#[test]
fn a_token_of_a_web_identity_that_was_replaced_is_read_again() {
    let sts = format!("http://{}", Emulator::shared().address());
    let fixture = Fixture::with_broker_and(
        without_credentials()
            .environment("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/postgres")
            .environment("AWS_WEB_IDENTITY_TOKEN_FILE", "token-of-the-test")
            .environment("AWS_REGION", "us-west-2")
            .environment("AWS_ENDPOINT_URL_STS", &sts),
    );
    let mut client = fixture.connect();
    let failure = client.fail_to_encrypt(&fixture.key_id).with("58000");
    assert!(failure.text().contains("credentials"), "no token: {failure:?}");
    // Relative to the data directory, as every path of the server.
    let token = fixture.cluster.data_directory().join("token-of-the-test");
    fs::write(&token, "a token").expect("the file can be written");
    process::give_to_server(&token);
    let value = client.encrypt("a text", &fixture.key_id);
    fs::write(&token, "another token").expect("the file can be written");
    fixture.proxy.set(Rule::every(EXPIRED).times(1));
    client.run("SELECT env_cache_flush(true)");
    assert_eq!(client.decrypt(&value), "a text", "the role was assumed anew");
    assert_eq!(fixture.proxy.calls("Decrypt"), 2);
}

/// docs/guide/aws.md, "Network".
#[test]
fn the_environment_says_how_aws_is_reached() {
    let proxy = FaultProxy::start(Emulator::shared().address());
    // Nobody listens there, so that nothing leaves this machine.
    let nowhere = || {
        Cluster::builder().environment("HTTPS_PROXY", "http://127.0.0.1:9").setting("envelope_pg.kms_max_attempts", "1")
    };
    for (variable, host) in [
        ("AWS_USE_FIPS_ENDPOINT", "kms-fips.us-west-2.amazonaws.com"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "kms.us-west-2.api.aws"),
    ] {
        let fixture = Fixture::kms_with(nowhere().environment(variable, "true"));
        fixture.cluster.set("envelope_pg.kms_endpoint_url", "");
        fixture.connect().fail_to_encrypt(&fixture.key_id).with("58000").says(host);
    }
    for variable in ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"] {
        let fixture = Fixture::kms_with(nowhere().environment(variable, &proxy.url()));
        fixture.cluster.set("envelope_pg.kms_endpoint_url", "");
        fixture.connect().encrypt("a text", &fixture.key_id);
    }
    let fixture = Fixture::kms_with(Cluster::builder().environment("HTTP_PROXY", &proxy.url()));
    fixture.cluster.set("envelope_pg.kms_endpoint_url", "http://kms.example.invalid");
    proxy.reset_counts();
    let _ = fixture.connect().try_encrypt("a text", &fixture.key_id);
    assert!(proxy.calls("GenerateDataKey") > 0, "by way of the proxy");
    let fixture = Fixture::kms_with(
        Cluster::builder().environment("HTTP_PROXY", "http://127.0.0.1:9").environment("NO_PROXY", "127.0.0.1"),
    );
    fixture.connect().encrypt("a text", &fixture.key_id);
    let front = TlsFront::start(proxy.address());
    let fixture = Fixture::kms_with(Cluster::builder().environment("SSL_CERT_FILE", &front.authority()));
    fixture.cluster.set("envelope_pg.kms_endpoint_url", &front.url());
    fixture.connect().encrypt("a text", &fixture.key_id);
}
