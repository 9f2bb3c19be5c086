//! What AWS KMS says of a key: for whoever checks a server, never on the way of a value.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyUsageType, OriginType};
use envelope_core::keys::KeyId;
use envelope_core::request::{KmsError, KmsErrorKind, Operation};

use super::AwsKms;
use crate::provider::KeyDescription;

impl AwsKms {
    /// One DescribeKey in the key's own region, and where the key could be rotated by AWS, one GetKeyRotationStatus.
    ///
    /// # Errors
    /// Why KMS does not say.
    pub async fn describe_key(&self, key_id: &KeyId) -> Result<KeyDescription, KmsError> {
        let mut targets = self.targets(key_id);
        targets.truncate(1);
        self.call(Operation::DescribeKey, targets, async |attempt| {
            let request = attempt.client.describe_key().key_id(attempt.key_id.to_string());
            let output = request.customize().interceptor(attempt.attempts.clone()).send().await?;
            let metadata = output
                .key_metadata
                .ok_or_else(|| KmsErrorKind::UnexpectedAnswer("it has nothing about the key".into()))?;
            Ok(KeyDescription {
                key_arn: metadata.arn.clone(),
                state: metadata.key_state.as_ref().map(|state| state.as_str().to_owned()),
                encrypts_symmetrically: metadata.key_usage == Some(KeyUsageType::EncryptDecrypt)
                    && metadata.key_spec.as_ref().is_none_or(|spec| *spec == KeySpec::SymmetricDefault),
                is_rotated: is_rotated(&attempt.client, &metadata).await,
                clock_ahead_seconds: attempt.attempts.server_seconds().map(|server| seconds_now() - server),
            })
        })
        .await
    }
}

/// `None`: it cannot be rotated by AWS, or KMS does not say (a right of its own, kms:GetKeyRotationStatus).
async fn is_rotated(client: &Client, metadata: &KeyMetadata) -> Option<bool> {
    if metadata.origin != Some(OriginType::AwsKms) {
        return None;
    }
    let status = client.get_key_rotation_status().key_id(&metadata.key_id).send().await.ok()?;
    Some(status.key_rotation_enabled)
}

fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
