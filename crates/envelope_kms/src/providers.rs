//! All providers behind one: each call goes to the one that has the key.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{KeyId, Provider, WrappedKey};
use envelope_core::request::{
    Calls, ConsentAge, KmsError, KmsErrorKind, Lease, OpeningGrant, Operation, Reply, Request, SealingGrant,
};

use crate::lasting::Lasting;
use crate::provider::{GeneratedKey, KeyDescription, KeyProvider, UnwrappedKey};
use crate::statistics::Statistics;
use crate::{aws, local};

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
    /// The providers under these settings. Makes no connection yet.
    #[must_use]
    pub fn new(settings: Settings, lasting: &Lasting) -> Self {
        Self {
            aws: aws::AwsKms::new(settings.aws, lasting.clone()),
            local: local::LocalKms::new(settings.local_keyring),
            statistics: lasting.statistics.clone(),
        }
    }

    /// How many circuit breakers are open: regions, and keys in regions.
    #[must_use]
    pub fn open_breakers(&self) -> u64 {
        self.aws.open_breakers()
    }

    /// Asks the provider whatever the request says.
    ///
    /// # Errors
    /// Why the provider did not do it.
    pub async fn answer(&self, request: Request) -> Result<Reply, KmsError> {
        let consent = ConsentAge::JUST_GIVEN;
        let may_call = request.terms().is_none_or(|terms| terms.calls != Calls::None);
        match request {
            Request::SealingKey { key_id, .. } if !may_call => {
                Err(KmsError::no_call_left(Operation::GenerateDataKey, &key_id.to_string()))
            }
            Request::OpeningKey { wrapped, .. } if !may_call => {
                Err(KmsError::no_call_left(Operation::Decrypt, &wrapped.key_id))
            }
            Request::SealingKey { key_id, context, .. } | Request::ReplaceDek { key_id, context, .. } => {
                let GeneratedKey { dek, wrapped } = self.generate_data_key(&key_id, &context).await?;
                Ok(Reply::Sealing(SealingGrant { dek, wrapped, age: Duration::ZERO, lease: Lease::default(), consent }))
            }
            Request::OpeningKey { wrapped, context, .. } => {
                let UnwrappedKey { dek, key_id } = self.unwrap_key(&wrapped, &context).await?;
                Ok(Reply::Opening(OpeningGrant { dek, key_id, consent }))
            }
            Request::Rewrap { wrapped, context, to } => {
                Ok(Reply::Rewrapped(self.rewrap_key(&wrapped, &context, &to).await?))
            }
        }
    }

    /// What the provider of a key says of it.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn describe_key(&self, key_id: &KeyId) -> Result<KeyDescription, KmsError> {
        match key_id {
            KeyId::Local(name) => self.local.describe_key(name),
            KeyId::AwsArn { .. } | KeyId::AwsName(_) => self.aws.describe_key(key_id).await,
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
