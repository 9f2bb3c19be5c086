//! The local provider on real files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::{KeyId, LocalKeyName};
use envelope_core::request::{KmsError, KmsErrorKind};
use envelope_core::value::{DataKey, DerivedKeys};
use envelope_kms::KeyProvider;
use envelope_kms::local::LocalKms;

struct Fixture {
    directory: tempfile::TempDir,
    kms: LocalKms,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kms = LocalKms::new(Some(directory.path().join("keys.json")));
        Self { directory, kms }
    }

    async fn with_key() -> Self {
        let fixture = Self::new();
        fixture.kms.create_key(&name("dev")).await.unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("keys.json")
    }
}

fn name(name: &str) -> LocalKeyName {
    LocalKeyName::parse(name).unwrap()
}

fn key_id(name: &str) -> KeyId {
    KeyId::parse(&format!("local:{name}")).unwrap()
}

fn context() -> EncryptionContext {
    EncryptionContext::from_json(r#"{"table": "t"}"#).unwrap()
}

fn kind<T>(result: Result<T, KmsError>) -> KmsErrorKind {
    result.err().expect("an error").kind
}

/// A value of a data key.
fn seal_with(data_key: &DataKey) -> Vec<u8> {
    let plaintext = b"secret";
    let mut value = vec![0x55; data_key.value_bytes(plaintext.len())];
    data_key.seal(ValueType::Text, &[9; 24], None, plaintext, &mut value);
    value
}

async fn seal(kms: &LocalKms) -> Vec<u8> {
    let generated = kms.generate_data_key(&key_id("dev"), &context()).await.unwrap();
    let data_key = DataKey::generated(generated.dek, generated.wrapped, &context(), &Rc::default()).unwrap();
    seal_with(&data_key)
}

async fn open(kms: &LocalKms, value: &[u8]) -> Result<Vec<u8>, String> {
    let envelope = Envelope::parse(value).map_err(|error| error.to_string())?;
    let context = envelope.head.encryption_context().map_err(|error| error.to_string())?;
    let wrapped = envelope.head.wrapped_keys().map_err(|error| error.to_string())?.remove(0);
    let unwrapped = kms.unwrap_key(&wrapped, &context).await.map_err(|error| error.to_string())?;
    let derived = DerivedKeys::of(unwrapped.dek, &context, &Rc::default());
    let data_key = DataKey::unwrapped(derived, wrapped, context, &envelope.head).map_err(|error| error.to_string())?;
    let mut plaintext = vec![0; envelope.ciphertext.len()];
    data_key.open(&envelope, None, &mut plaintext).map_err(|error| error.to_string())?;
    Ok(plaintext)
}

#[tokio::test]
async fn a_value_opens_and_no_changed_one_does() {
    let fixture = Fixture::with_key().await;
    let value = seal(&fixture.kms).await;
    assert_eq!(open(&fixture.kms, &value).await.as_deref(), Ok(&b"secret"[..]));
    for position in 0..value.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = value.clone();
            changed[position] ^= change;
            assert!(open(&fixture.kms, &changed).await.is_err(), "byte {position} xor {change}");
        }
    }
}

#[tokio::test]
async fn the_context_and_the_name_are_bound_to_the_data_key() {
    let fixture = Fixture::with_key().await;
    fixture.kms.create_key(&name("other")).await.unwrap();
    let generated = fixture.kms.generate_data_key(&key_id("dev"), &context()).await.unwrap();
    let other_context = fixture.kms.unwrap_key(&generated.wrapped, &EncryptionContext::default()).await;
    assert_eq!(kind(other_context), KmsErrorKind::WrappedKeyRejected);
    let mut renamed = generated.wrapped.clone();
    renamed.key_id = "local:other".into();
    assert_eq!(kind(fixture.kms.unwrap_key(&renamed, &context()).await), KmsErrorKind::WrappedKeyRejected);
}

#[tokio::test]
async fn a_rotated_key_opens_old_values_and_wraps_under_the_new_version() {
    let fixture = Fixture::with_key().await;
    let old = seal(&fixture.kms).await;
    assert_eq!(fixture.kms.rotate_key(&name("dev")).await.unwrap(), 2);
    let new = seal(&fixture.kms).await;
    let version = |value: &[u8]| Envelope::parse(value).unwrap().head.wrapped_keys().unwrap()[0].wrapped_dek[4];
    assert_eq!((version(&old), version(&new)), (1, 2));
    assert!(open(&fixture.kms, &old).await.is_ok() && open(&fixture.kms, &new).await.is_ok());
    assert_eq!(kind(fixture.kms.rotate_key(&name("none")).await), KmsErrorKind::NotFound);
}

#[tokio::test]
async fn rewrapping_keeps_the_ciphertext() {
    let fixture = Fixture::with_key().await;
    fixture.kms.create_key(&name("next")).await.unwrap();
    let generated = fixture.kms.generate_data_key(&key_id("dev"), &context()).await.unwrap();
    let rewrapped = fixture.kms.rewrap_key(&generated.wrapped, &context(), &key_id("next")).await.unwrap();
    assert_eq!(rewrapped.key_id, "local:next");
    let data_key = DataKey::generated(generated.dek, generated.wrapped, &context(), &Rc::default()).unwrap();
    let value = seal_with(&data_key);
    let unwrapped = fixture.kms.unwrap_key(&rewrapped, &context()).await.unwrap();
    let derived = DerivedKeys::of(unwrapped.dek, &context(), &Rc::default());
    let opened = DataKey::unwrapped(derived, rewrapped, context(), &Envelope::parse(&value).unwrap().head);
    assert!(opened.is_ok(), "the same data key, so the same commitment");
}

#[tokio::test]
async fn the_file_is_private_and_nothing_is_left_beside_it() {
    let fixture = Fixture::with_key().await;
    fixture.kms.rotate_key(&name("dev")).await.unwrap();
    assert_eq!(fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    let files: Vec<_> = fs::read_dir(&fixture.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["keys.json"]);
}

#[tokio::test]
async fn a_temporary_file_of_a_crash_is_in_nobodys_way() {
    let fixture = Fixture::with_key().await;
    let left = fixture.directory.path().join(".keys.json.new");
    fs::write(&left, "{\"half").unwrap();
    fixture.kms.create_key(&name("other")).await.unwrap();
    assert!(!left.exists());
    assert!(fixture.kms.generate_data_key(&key_id("dev"), &context()).await.is_ok());
}

#[tokio::test]
async fn each_trouble_with_the_file_has_its_own_error() {
    let problem = async |prepare: &dyn Fn(&Fixture)| {
        let fixture = Fixture::with_key().await;
        prepare(&fixture);
        match kind(fixture.kms.generate_data_key(&key_id("dev"), &context()).await) {
            KmsErrorKind::Keyring(problem) => {
                // A file in trouble is never replaced.
                let before = fs::read(fixture.path()).ok();
                if before.is_some() {
                    assert!(fixture.kms.create_key(&name("new")).await.is_err());
                }
                assert_eq!(fs::read(fixture.path()).ok(), before);
                problem.replace(&fixture.path().display().to_string(), "FILE")
            }
            kind => panic!("{kind}"),
        }
    };
    let write = |json: &'static str| move |fixture: &Fixture| fs::write(fixture.path(), json).unwrap();
    let mode =
        |mode| move |fixture: &Fixture| fs::set_permissions(fixture.path(), fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(problem(&|fixture| fs::remove_file(fixture.path()).unwrap()).await, "\"FILE\" does not exist");
    assert_eq!(problem(&mode(0o640)).await, "\"FILE\" can be read or written by others (mode 0640)");
    assert_eq!(problem(&mode(0o602)).await, "\"FILE\" can be read or written by others (mode 0602)");
    assert_eq!(problem(&write("")).await, "\"FILE\" is corrupt at line 1, column 0");
    assert_eq!(problem(&write("{\"format\": 1, \"keys\":")).await, "\"FILE\" is corrupt at line 1, column 21");
    assert_eq!(problem(&write("{\"format\": 2, \"keys\": {}}")).await, "\"FILE\" has unsupported format 2");
    let missing = write(r#"{"format": 1, "keys": {"dev": {"current": 2, "versions": {}}}}"#);
    assert_eq!(problem(&missing).await, "\"FILE\" is corrupt: it lacks the current version of a key");
    let short = write(r#"{"format": 1, "keys": {"dev": {"current": 1, "versions": {"1": "c2VjcmV0"}}}}"#);
    assert!(problem(&short).await.starts_with("\"FILE\" is corrupt at line 1"));
}

#[tokio::test]
async fn missing_keys_and_no_file() {
    let fixture = Fixture::with_key().await;
    assert_eq!(kind(fixture.kms.generate_data_key(&key_id("none"), &context()).await), KmsErrorKind::NotFound);
    assert_eq!(kind(fixture.kms.create_key(&name("dev")).await), KmsErrorKind::LocalKeyExists);
    let off = LocalKms::new(None);
    assert_eq!(kind(off.generate_data_key(&key_id("dev"), &context()).await), KmsErrorKind::LocalProviderOff);
    assert_eq!(kind(off.create_key(&name("dev")).await), KmsErrorKind::LocalProviderOff);
    let nowhere = LocalKms::new(Some(fixture.directory.path().join("no/such/directory/keys.json")));
    assert!(matches!(kind(nowhere.create_key(&name("dev")).await), KmsErrorKind::Keyring(_)));
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = fixture.path();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for key in 0..8 {
                    let kms = LocalKms::new(Some(path.clone()));
                    runtime.block_on(kms.create_key(&name(&format!("key-{writer}-{key}")))).unwrap();
                }
            });
        }
    });
    let keyring: serde_json::Value = serde_json::from_slice(&fs::read(fixture.path()).unwrap()).unwrap();
    assert_eq!(keyring["keys"].as_object().unwrap().len(), 32);
}

/// Somebody may have put something there that never ends.
#[test]
fn a_fifo_is_no_key_file_and_a_lock_that_stays_is_an_error() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let made = std::process::Command::new("mkfifo").arg(fixture.path()).status().unwrap();
    assert!(made.success());
    let started = Instant::now();
    let refused = kind(runtime.block_on(fixture.kms.generate_data_key(&key_id("dev"), &context())));
    assert!(matches!(&refused, KmsErrorKind::Keyring(reason) if reason.contains("is not a file")), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(2));

    fs::remove_file(fixture.path()).unwrap();
    let directory = fs::File::open(fixture.path().parent().unwrap()).unwrap();
    directory.lock().unwrap();
    let refused = kind(runtime.block_on(fixture.kms.create_key(&name("dev"))));
    assert!(matches!(&refused, KmsErrorKind::Keyring(reason) if reason.contains("locked")), "{refused:?}");
    drop(directory);
    runtime.block_on(fixture.kms.create_key(&name("dev"))).unwrap();
}

#[test]
fn errors_show_no_keys() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(fixture.kms.create_key(&name("dev"))).unwrap();
    let json = fs::read_to_string(fixture.path()).unwrap();
    let key = json.split('"').find(|part| part.len() == 44).unwrap().to_owned();
    // Valid JSON of another shape, which a parser's message would quote.
    fs::write(fixture.path(), json.replacen(&format!("\"{key}\""), &format!("[\"{key}\"]"), 1)).unwrap();
    let error = kind(runtime.block_on(fixture.kms.generate_data_key(&key_id("dev"), &context())));
    assert!(!format!("{error:?}").contains(&key[..10]));
    assert_eq!(ValueError::AuthenticationFailed.to_string(), "encrypted value could not be authenticated");
}
