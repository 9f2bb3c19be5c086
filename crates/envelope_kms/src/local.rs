//! The local provider: keys in a JSON file. For trying things out and for tests; whoever reads the file has the keys.
//!
//! A wrapped data key is `01 | u32 key version | nonce 12 | ciphertext 32 | tag 16`: AES-256-GCM (NIST SP 800-38D) under the
//! key version, with associated data `"envelope_pg/v1/local/" || key name || 00 || u32 key version || encryption context`.

mod keyring;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, Nonce};
use envelope_core::context::EncryptionContext;
use envelope_core::keys::stack::{AEAD_BYTES, with_wiped_stack};
use envelope_core::keys::{Dek, KEY_BYTES, KeyId, LocalKeyName, Provider, WrappedKey};
use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use keyring::{Key, Keyring, KeyringLock};
use zeroize::Zeroizing;

use crate::provider::{GeneratedKey, KeyDescription, KeyProvider, UnwrappedKey};

const WRAPPED_FORM: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"envelope_pg/v1/local/";
/// How often a session that waits for another one's change of the key file looks again.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A change of the file takes milliseconds: whoever has the lock for so long does not give it back.
const LOCK_TIME: Duration = Duration::from_secs(2);

/// The keys of a file; none without a file.
pub struct LocalKms {
    path: Option<PathBuf>,
}

impl LocalKms {
    /// Keys of the file at `path`, which is read at each call. `None`: the provider is off.
    #[must_use]
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Adds a key, and makes the file if there is none. Returns the key id.
    ///
    /// # Errors
    /// [`KmsErrorKind::LocalKeyExists`], and what can be wrong with the file.
    pub async fn create_key(&self, name: &LocalKeyName) -> Result<String, KmsError> {
        self.change(name, Keyring::read_or_new, |keyring| match keyring.keys.contains_key(name.as_str()) {
            true => Err(KmsErrorKind::LocalKeyExists),
            false => {
                keyring.keys.insert(name.as_str().to_owned(), Key::random()?);
                Ok(format!("local:{name}"))
            }
        })
        .await
    }

    /// Adds a version to a key: new data keys are wrapped under it, and older ones still open. Returns the version.
    ///
    /// # Errors
    /// [`KmsErrorKind::NotFound`], and what can be wrong with the file.
    pub async fn rotate_key(&self, name: &LocalKeyName) -> Result<u32, KmsError> {
        self.change(name, Keyring::read, |keyring| {
            keyring.keys.get_mut(name.as_str()).ok_or(KmsErrorKind::NotFound)?.rotate()
        })
        .await
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// [`KmsErrorKind::NotFound`], and what can be wrong with the file.
    pub fn describe_key(&self, name: &LocalKeyName) -> Result<KeyDescription, KmsError> {
        let found = self.key(name.as_str());
        found.map_err(|kind| KmsError::new(kind, Operation::DescribeKey, &format!("local:{name}")))?;
        let state = Some("Enabled".to_owned());
        Ok(KeyDescription {
            key_arn: None,
            state,
            encrypts_symmetrically: true,
            is_rotated: None,
            clock_ahead_seconds: None,
        })
    }

    /// Reads, changes and replaces the file while no other session does.
    async fn change<T>(
        &self,
        name: &LocalKeyName,
        read: impl FnOnce(&Path) -> Result<Keyring, KmsErrorKind>,
        change: impl FnOnce(&mut Keyring) -> Result<T, KmsErrorKind>,
    ) -> Result<T, KmsError> {
        let changed = async {
            let path = self.path()?;
            let started = Instant::now();
            let _lock = loop {
                match KeyringLock::try_acquire(path)? {
                    Some(lock) => break lock,
                    None if started.elapsed() >= LOCK_TIME => return Err(keyring::is_locked(path)),
                    None => tokio::time::sleep(LOCK_POLL).await,
                }
            };
            let mut keyring = read(path)?;
            let result = change(&mut keyring)?;
            keyring.write(path)?;
            Ok(result)
        };
        changed.await.map_err(|kind| KmsError::new(kind, Operation::ChangeKeyring, &format!("local:{name}")))
    }

    fn path(&self) -> Result<&Path, KmsErrorKind> {
        self.path.as_deref().ok_or(KmsErrorKind::LocalProviderOff)
    }

    fn key(&self, name: &str) -> Result<Key, KmsErrorKind> {
        Keyring::read(self.path()?)?.keys.remove(name).ok_or(KmsErrorKind::NotFound)
    }

    fn wrap(&self, name: &str, dek: &Dek, context: &EncryptionContext) -> Result<WrappedKey, KmsErrorKind> {
        let key = self.key(name)?;
        let kek = key.current_version();
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| KmsErrorKind::Unreachable(error.to_string()))?;
        let (mut ciphertext, mut tag) = ([0; KEY_BYTES], [0; TAG_BYTES]);
        let associated_data = Aad::from(associated_data(name, key.current, context));
        with_wiped_stack::<AEAD_BYTES, _>(|| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            kek.cipher().seal_out_of_place_scatter(
                nonce,
                associated_data,
                dek.as_bytes(),
                &mut ciphertext,
                &[],
                &mut tag,
            )
        })
        .expect("the ciphertext is as long as the data key");
        let wrapped_dek = [&[WRAPPED_FORM][..], &key.current.to_be_bytes(), &nonce, &ciphertext, &tag].concat();
        Ok(WrappedKey { provider: Provider::Local, key_id: format!("local:{name}"), wrapped_dek })
    }

    fn unwrap(&self, wrapped: &WrappedKey, context: &EncryptionContext) -> Result<Dek, KmsErrorKind> {
        let name = local_name(&wrapped.key_id).ok_or(KmsErrorKind::WrappedKeyRejected)?;
        let key = self.key(name)?;
        let parts = WrappedParts::parse(&wrapped.wrapped_dek).ok_or(KmsErrorKind::WrappedKeyRejected)?;
        let kek = key.versions.get(&parts.version).ok_or(KmsErrorKind::WrappedKeyRejected)?;
        let mut dek = Zeroizing::new([0; KEY_BYTES]);
        let associated_data = Aad::from(associated_data(name, parts.version, context));
        with_wiped_stack::<AEAD_BYTES, _>(|| {
            let nonce = Nonce::assume_unique_for_key(*parts.nonce);
            kek.cipher().open_separate_gather(nonce, associated_data, parts.ciphertext, parts.tag, &mut dek[..])
        })
        .map_err(|_| KmsErrorKind::WrappedKeyRejected)?;
        Ok(Dek::take_from(&mut dek[..]).expect("as long as a data key"))
    }
}

impl KeyProvider for LocalKms {
    async fn generate_data_key(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        let generate = || {
            let name = local_name_of(key_id)?;
            let mut bytes = Zeroizing::new([0; KEY_BYTES]);
            getrandom::fill(&mut bytes[..]).map_err(|error| KmsErrorKind::Unreachable(error.to_string()))?;
            let dek = Dek::take_from(&mut bytes[..]).expect("as long as a data key");
            let wrapped = self.wrap(name, &dek, context)?;
            Ok(GeneratedKey { dek, wrapped })
        };
        generate().map_err(|kind| KmsError::new(kind, Operation::GenerateDataKey, &key_id.to_string()))
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        match self.unwrap(wrapped, context) {
            Ok(dek) => Ok(UnwrappedKey { dek, key_id: wrapped.key_id.clone() }),
            Err(kind) => Err(KmsError::new(kind, Operation::Decrypt, &wrapped.key_id)),
        }
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        to: &KeyId,
    ) -> Result<WrappedKey, KmsError> {
        let rewrap = || self.wrap(local_name_of(to)?, &self.unwrap(wrapped, context)?, context);
        rewrap().map_err(|kind| KmsError::new(kind, Operation::ReEncrypt, &to.to_string()))
    }
}

/// The fields of a wrapped data key, in place.
struct WrappedParts<'a> {
    version: u32,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8; KEY_BYTES],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> WrappedParts<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (form, rest) = bytes.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, rest) = rest.split_first_chunk()?;
        let tag = rest.try_into().ok()?;
        (*form == WRAPPED_FORM).then_some(Self { version: u32::from_be_bytes(*version), nonce, ciphertext, tag })
    }
}

fn associated_data(name: &str, version: u32, context: &EncryptionContext) -> Vec<u8> {
    [LABEL, name.as_bytes(), &[0], &version.to_be_bytes(), &context.for_kms_encoded()].concat()
}

fn local_name(key_id: &str) -> Option<&str> {
    key_id.strip_prefix("local:")
}

fn local_name_of(key_id: &KeyId) -> Result<&str, KmsErrorKind> {
    match key_id {
        KeyId::Local(name) => Ok(name.as_str()),
        KeyId::AwsArn { .. } | KeyId::AwsName(_) => Err(KmsErrorKind::NotFound),
    }
}
