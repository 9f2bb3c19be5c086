//! The key providers: who makes, unwraps and rewraps data keys.
//!
//! - [`aws`]: AWS KMS
//! - [`breaker`]: when not to call it
//! - [`event`]: what is worth a line in the log
//! - [`local`]: keys in a file, for trying things out and for tests
//! - [`request`]: what a session asks
//! - [`statistics`]: counts of the calls

pub mod aws;
pub mod breaker;
pub mod error;
pub mod event;
mod keyring;
pub mod local;
pub mod request;
pub mod statistics;

use std::future::Future;
use std::path::PathBuf;

use crate::context::EncryptionContext;
use crate::keys::{Dek, KeyId, Provider, WrappedKey};
pub use error::{Answer, KmsError, KmsErrorKind, Operation};
pub use event::{Event, Events};
pub use request::{Reply, Request};
pub use statistics::Statistics;

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

/// The administrator's settings of the providers.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Settings {
    /// AWS KMS.
    pub aws: aws::Settings,
    /// The key file of the local provider; `None` turns it off.
    pub local_keyring: Option<PathBuf>,
}

/// All providers: each call goes to the one that has the key.
pub struct Providers {
    aws: aws::AwsKms,
    local: local::LocalKms,
    statistics: Statistics,
}

impl Providers {
    /// The providers under these settings. Makes no connection yet. Adds to `events` what an administrator wants to see, and
    /// counts its calls in `statistics`.
    #[must_use]
    pub fn new(settings: Settings, events: Events, statistics: Statistics) -> Self {
        Self {
            aws: aws::AwsKms::new(settings.aws, events, statistics.clone()),
            local: local::LocalKms::new(settings.local_keyring),
            statistics,
        }
    }

    /// A call to the local provider, counted.
    async fn local<T>(
        &self,
        operation: Operation,
        key_id: &str,
        call: impl Future<Output = Result<T, KmsError>>,
    ) -> Result<T, KmsError> {
        let counted = self.statistics.begin(operation, key_id);
        let result = call.await;
        counted.end(1, 0, result.as_ref().err());
        result
    }
}

impl KeyProvider for Providers {
    async fn generate_data_key(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        match key_id.provider() {
            Provider::AwsKms => self.aws.generate_data_key(key_id, context).await,
            Provider::Local => {
                let call = self.local.generate_data_key(key_id, context);
                self.local(Operation::GenerateDataKey, &key_id.to_string(), call).await
            }
        }
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        match wrapped.provider {
            Provider::AwsKms => self.aws.unwrap_key(wrapped, context).await,
            Provider::Local => {
                self.local(Operation::Decrypt, &wrapped.key_id, self.local.unwrap_key(wrapped, context)).await
            }
        }
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        to: &KeyId,
    ) -> Result<WrappedKey, KmsError> {
        if wrapped.provider != to.provider() {
            let kind = KmsErrorKind::InvalidRequest("a data key can only be rewrapped within its key provider".into());
            return Err(KmsError::new(kind, Operation::ReEncrypt, &wrapped.key_id));
        }
        match wrapped.provider {
            Provider::AwsKms => self.aws.rewrap_key(wrapped, context, to).await,
            Provider::Local => {
                let call = self.local.rewrap_key(wrapped, context, to);
                self.local(Operation::ReEncrypt, &to.to_string(), call).await
            }
        }
    }
}
