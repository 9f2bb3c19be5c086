//! What every key provider does: make, unwrap and rewrap data keys.

use std::future::Future;

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, KeyId, WrappedKey};
use envelope_core::request::KmsError;

/// A data key that was just made.
pub struct GeneratedKey {
    /// The plaintext.
    pub dek: Dek,
    /// The same, wrapped under the key that the provider resolved the key id to.
    pub wrapped: WrappedKey,
}

/// A data key that was unwrapped.
pub struct UnwrappedKey {
    /// The plaintext.
    pub dek: Dek,
    /// The key that wrapped it, as the provider confirmed it.
    pub key_id: String,
}

/// What a provider says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDescription {
    /// The key ARN; `None` for a key of the local provider.
    pub key_arn: Option<String>,
    /// As AWS KMS calls it: `Enabled`, `Disabled`, `PendingDeletion`, ...
    pub state: Option<String>,
    /// Whether it is a key that can wrap data keys.
    pub encrypts_symmetrically: bool,
    /// Whether AWS makes new key material for it every year; `None` where that is not to be had, or not said.
    pub is_rotated: Option<bool>,
    /// By how much the clock here is ahead of the service's.
    pub clock_ahead_seconds: Option<i64>,
}

/// Who has the key encryption keys. Calls may be dropped at any time: that cancels them.
pub trait KeyProvider {
    /// Makes a data key under a key.
    fn generate_data_key(
        &self,
        key_id: &KeyId,
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<GeneratedKey, KmsError>>;

    /// Unwraps a data key.
    fn unwrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
    ) -> impl Future<Output = Result<UnwrappedKey, KmsError>>;

    /// Wraps a data key under another key of the same provider; its plaintext does not come here.
    fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        to: &KeyId,
    ) -> impl Future<Output = Result<WrappedKey, KmsError>>;
}
