//! What every key provider must do. A new one is added to the tests at the end.

use std::env;
use std::future::Future;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Waker};
use std::time::Duration;

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{KeyId, LocalKeyName, WrappedKey, check_resolved};
use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use envelope_kms::local::LocalKms;
use envelope_kms::{KeyProvider, Lasting, Providers, Settings, aws};
use testkit::Emulator;
use testkit::emulator::REGION;

/// A provider, and keys that it has and has not.
struct Subject<P> {
    provider: P,
    keys: [KeyId; 2],
    missing: KeyId,
}

fn context(json: &str) -> EncryptionContext {
    EncryptionContext::from_json(json).expect("a flat object of strings")
}

fn refused<T>(result: Result<T, KmsError>, operation: Operation) -> KmsErrorKind {
    let Err(error) = result else { panic!("it was not refused") };
    assert_eq!(error.operation, operation);
    error.kind
}

async fn conforms<P: KeyProvider>(Subject { provider, keys: [key, other_key], missing }: Subject<P>) {
    let (table, other_table) = (context(r#"{"table": "a"}"#), context(r#"{"table": "b"}"#));

    // A data key is new each time, and its wrapped form names the key itself and no alias.
    let made = provider.generate_data_key(&key, &table).await.expect("a data key");
    let another = provider.generate_data_key(&key, &table).await.expect("a data key");
    assert!(made.dek.as_bytes() != another.dek.as_bytes());
    assert!(made.wrapped.wrapped_dek != another.wrapped.wrapped_dek && !made.wrapped.wrapped_dek.is_empty());
    assert_eq!(made.wrapped.provider, key.provider());
    assert_eq!(check_resolved(&made.wrapped.key_id), Ok(()));

    // It comes back, under the encryption context that it was made with only.
    let unwrapped = provider.unwrap_key(&made.wrapped, &table).await.expect("the data key");
    assert!(unwrapped.dek.as_bytes() == made.dek.as_bytes());
    assert_eq!(unwrapped.key_id, made.wrapped.key_id);
    for context in [&other_table, &EncryptionContext::default()] {
        let kind = refused(provider.unwrap_key(&made.wrapped, context).await, Operation::Decrypt);
        assert_eq!(kind, KmsErrorKind::WrappedKeyRejected);
    }

    // Nothing of its wrapped form can be changed.
    let wrapped_dek = &made.wrapped.wrapped_dek;
    let changed = (0..wrapped_dek.len()).map(|at| {
        let mut changed = wrapped_dek.clone();
        changed[at] ^= 1;
        changed
    });
    for wrapped_dek in changed.chain([wrapped_dek[1..].to_vec(), wrapped_dek[..wrapped_dek.len() - 1].to_vec(), vec![]])
    {
        let forged = WrappedKey { wrapped_dek, ..made.wrapped.clone() };
        let kind = refused(provider.unwrap_key(&forged, &table).await, Operation::Decrypt);
        assert!(kind.is_refusal(), "{kind:?}");
    }

    // Under another key it is the same data key, bound to the same context.
    let rewrapped = provider.rewrap_key(&made.wrapped, &table, &other_key).await.expect("the data key, rewrapped");
    assert!(rewrapped.key_id != made.wrapped.key_id);
    let unwrapped = provider.unwrap_key(&rewrapped, &table).await.expect("the data key");
    assert!(unwrapped.dek.as_bytes() == made.dek.as_bytes());
    assert!(refused(provider.unwrap_key(&rewrapped, &other_table).await, Operation::Decrypt).is_refusal());
    assert!(
        refused(provider.rewrap_key(&made.wrapped, &other_table, &other_key).await, Operation::ReEncrypt).is_refusal()
    );

    // A key that is not there.
    let kind = refused(provider.generate_data_key(&missing, &table).await, Operation::GenerateDataKey);
    assert_eq!(kind, KmsErrorKind::NotFound);

    // A call can be given up at any time.
    let given_up =
        pin!(provider.unwrap_key(&made.wrapped, &table)).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(given_up);
    assert!(provider.unwrap_key(&made.wrapped, &table).await.is_ok());
}

async fn local(directory: &tempfile::TempDir) -> (LocalKms, [KeyId; 2], KeyId) {
    let path = directory.path().join("keys.json");
    let provider = LocalKms::new(Some(path));
    for name in ["one", "other"] {
        provider.create_key(&LocalKeyName::parse(name).expect("a name")).await.expect("a key");
    }
    let key = |text: &str| KeyId::parse(text).expect("a key id");
    (provider, [key("local:one"), key("local:other")], key("local:missing"))
}

#[tokio::test]
async fn the_local_provider_conforms() {
    let directory = tempfile::tempdir().expect("a directory");
    let (provider, keys, missing) = local(&directory).await;
    conforms(Subject { provider, keys, missing }).await;
}

#[tokio::test]
async fn all_providers_behind_one_conform() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_, keys, missing) = local(&directory).await;
    let settings = Settings { aws: aws_settings(None), local_keyring: Some(directory.path().join("keys.json")) };
    let provider = Providers::new(settings, &Lasting::default());
    conforms(Subject { provider, keys, missing }).await;
}

/// AWS KMS, as far as the emulator is AWS. The SDK takes credentials from the environment, so the test runs itself again.
#[test]
fn aws_kms_conforms() {
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
    if env::var(SECRET).is_ok_and(|secret| secret == "emulator") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(emulated_kms_conforms());
    }
    let status = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "aws_kms_conforms", "--nocapture"])
        .envs([("AWS_ACCESS_KEY_ID", "emulator"), (SECRET, "emulator")])
        .status();
    assert!(status.expect("it runs").success());
}

async fn emulated_kms_conforms() {
    let emulator = Emulator::shared();
    let (one, other) = (emulator.create_key(), emulator.create_key());
    emulator.create_alias("alias/conformance", &one);
    let settings = Settings { aws: aws_settings(Some(format!("http://{}", emulator.address()))), local_keyring: None };
    let key = |text: &str| KeyId::parse(text).expect("a key id");
    for named in [one.arn.as_str(), &one.id, "alias/conformance"] {
        let provider = aws::AwsKms::new(settings.aws.clone(), Lasting::default());
        let missing = key("alias/missing");
        conforms(Subject { provider, keys: [key(named), key(&other.arn)], missing }).await;
    }
}

fn aws_settings(endpoint_url: Option<String>) -> aws::Settings {
    aws::Settings {
        region: endpoint_url.as_ref().map(|_| REGION.to_owned()),
        endpoint_url,
        profile: None,
        timeout: Duration::from_secs(10),
        max_attempts: 1,
        max_calls_per_second: None,
        failover_regions: vec![],
    }
}
