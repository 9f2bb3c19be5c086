//! AWS KMS.
//!
//! - [`client`]: the SDK's clients, one per region
//! - [`http`]: the HTTP client under them
//! - [`call`]: one call: its time limit, the circuit breakers, the fail-over regions
//! - [`attempts`]: what the SDK's attempts at a call came to
//! - [`describe`]: what KMS says of a key
//! - [`retries`]: which answers are worth another attempt
//! - [`codes`]: the error codes of KMS
//! - [`failure`]: what an error of the SDK means

mod attempts;
mod call;
mod client;
mod codes;
mod describe;
mod failure;
mod http;
mod retries;

use std::time::Instant;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, KeyArn, KeyId, Provider, WrappedKey};
use envelope_core::request::{KmsError, KmsErrorKind, Operation};
use zeroize::Zeroizing;

pub use crate::aws_settings::Settings;
use crate::provider::{GeneratedKey, KeyProvider, UnwrappedKey};
pub use call::AwsKms;
use call::Target;

/// What KMS wraps (AWS KMS API Reference: CiphertextBlob), so that a value can hold it.
const MAX_WRAPPED_DEK_BYTES: usize = 6144;

impl KeyProvider for AwsKms {
    async fn generate_data_key(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        self.call(Operation::GenerateDataKey, self.targets(key_id), async |attempt| {
            let asked = Instant::now();
            let output = attempt
                .client
                .generate_data_key()
                .key_id(attempt.key_id.to_string())
                .key_spec(DataKeySpec::Aes256)
                .set_encryption_context(Some(context.for_kms()))
                .customize()
                .interceptor(attempt.attempts.clone())
                .send()
                .await?;
            let dek = take_dek(output.plaintext)?;
            let key_arn = answered_key(output.key_id, &attempt.key_id)?;
            self.heed_resolution(&attempt, &key_arn, asked)?;
            Ok(GeneratedKey { dek, wrapped: wrapped_key(key_arn, output.ciphertext_blob)? })
        })
        .await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        let targets = self.targets(&key_id_of(wrapped, Operation::Decrypt)?);
        self.call(Operation::Decrypt, targets, async |attempt| {
            let output = attempt
                .client
                .decrypt()
                .key_id(attempt.key_id.to_string())
                .ciphertext_blob(Blob::new(wrapped.wrapped_dek.clone()))
                .set_encryption_context(Some(context.for_kms()))
                .customize()
                .interceptor(attempt.attempts.clone())
                .send()
                .await?;
            let dek = take_dek(output.plaintext)?;
            Ok(UnwrappedKey { dek, key_id: answered_key(output.key_id, &attempt.key_id)? })
        })
        .await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        to: &KeyId,
    ) -> Result<WrappedKey, KmsError> {
        let source = key_id_of(wrapped, Operation::ReEncrypt)?;
        let region = match (to, &source) {
            (KeyId::AwsArn { region, .. }, _) | (_, KeyId::AwsArn { region, .. }) => Some(region.clone()),
            _ => None,
        };
        // Both keys are in one region, so there is nowhere to fail over to.
        let target = Target { region, key_id: to.clone(), is_own: true };
        self.call(Operation::ReEncrypt, vec![target], async |attempt| {
            let output = attempt
                .client
                .re_encrypt()
                .source_key_id(source.to_string())
                .ciphertext_blob(Blob::new(wrapped.wrapped_dek.clone()))
                .set_source_encryption_context(Some(context.for_kms()))
                .destination_key_id(attempt.key_id.to_string())
                .set_destination_encryption_context(Some(context.for_kms()))
                .customize()
                .interceptor(attempt.attempts.clone())
                .send()
                .await?;
            answered_key(output.source_key_id, &source)?;
            let key_arn = answered_key(output.key_id, &attempt.key_id)?;
            Ok(wrapped_key(key_arn, output.ciphertext_blob)?)
        })
        .await
    }
}

/// The key that wraps a data key: values name it by key ARN.
fn key_id_of(wrapped: &WrappedKey, operation: Operation) -> Result<KeyId, KmsError> {
    KeyId::parse(&wrapped.key_id).map_err(|_| KmsError::new(KmsErrorKind::NotFound, operation, &wrapped.key_id))
}

/// The key ARN in an answer, if it is of the key that was named.
fn answered_key(key_arn: Option<String>, named: &KeyId) -> Result<String, KmsErrorKind> {
    key_arn
        .filter(|key_arn| is_answer_for(named, key_arn))
        .ok_or(KmsErrorKind::UnexpectedAnswer("it is from another key than the one that was named".into()))
}

fn wrapped_key(key_id: String, blob: Option<Blob>) -> Result<WrappedKey, KmsErrorKind> {
    let wrapped_dek = blob.map(Blob::into_inner).unwrap_or_default();
    if !(1..=MAX_WRAPPED_DEK_BYTES).contains(&wrapped_dek.len()) {
        return Err(KmsErrorKind::UnexpectedAnswer("it has no wrapped data key".into()));
    }
    Ok(WrappedKey { provider: Provider::AwsKms, key_id, wrapped_dek })
}

/// Whether KMS can have resolved a key id to this key ARN. An alias can point to any key of its account and region.
fn is_answer_for(key_id: &KeyId, key_arn: &str) -> bool {
    let Some(answer) = KeyArn::parse(key_arn) else {
        return false;
    };
    let Some(key) = answer.key() else {
        return false;
    };
    match key_id {
        KeyId::Local(_) => false,
        KeyId::AwsName(name) => name.starts_with("alias/") || name.eq_ignore_ascii_case(key),
        KeyId::AwsArn { arn, .. } => KeyArn::parse(arn).is_some_and(|named| {
            (named.partition, named.region, named.account) == (answer.partition, answer.region, answer.account)
                && named.key().is_none_or(|named| named.eq_ignore_ascii_case(key))
        }),
    }
}

fn take_dek(plaintext: Option<Blob>) -> Result<Dek, KmsErrorKind> {
    let mut bytes = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    Dek::take_from(&mut bytes).ok_or(KmsErrorKind::UnexpectedAnswer("the data key is not 32 bytes long".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_of_the_named_key() {
        const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
        for (named, matches) in [
            (KEY, true),
            ("715c0818-5825-4245-a755-138a6d9a11e6", true),
            ("715C0818-5825-4245-A755-138A6D9A11E6", true),
            ("alias/app", true),
            ("arn:aws:kms:us-west-2:111122223333:alias/app", true),
            ("arn:aws:kms:us-west-2:999922223333:alias/app", false),
            ("arn:aws:kms:eu-west-2:111122223333:alias/app", false),
            ("00000000-5825-4245-a755-138a6d9a11e6", false),
            ("arn:aws:kms:us-west-2:111122223333:key/00000000-5825-4245-a755-138a6d9a11e6", false),
            ("local:dev", false),
        ] {
            assert_eq!(is_answer_for(&KeyId::parse(named).unwrap(), KEY), matches, "{named}");
        }
        assert!(!is_answer_for(&KeyId::parse("alias/app").unwrap(), "alias/app"));
    }
}
