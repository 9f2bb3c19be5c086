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
