//! AWS KMS. One client per region, made at its first use; the retries are the SDK's.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Region;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{Answer, GeneratedKey, KeyProvider, KmsError, KmsErrorKind, Operation, UnwrappedKey};
use crate::context::EncryptionContext;
use crate::key_reference::KeyArn;
use crate::keys::{Dek, KeyId, Provider, WrappedKey};

/// The administrator's settings for AWS KMS. What is `None` comes from the SDK's standard chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Region for keys that are not named by ARN.
    pub region: Option<String>,
    /// Another endpoint than AWS's own: a VPC endpoint, or an emulator.
    pub endpoint_url: Option<String>,
    /// Profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Limit on one whole call: credentials, connection and retries included.
    pub timeout: Duration,
}

/// AWS KMS under some settings.
pub struct AwsKms {
    settings: Settings,
    /// By region; `None` is the region of the SDK's standard chain. Held only to look up and to add, never over an await.
    clients: Mutex<Vec<(Option<String>, Client)>>,
}

impl AwsKms {
    /// Makes no connection yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, clients: Mutex::new(Vec::new()) }
    }

    async fn client(&self, region: Option<&str>) -> Result<Client, KmsErrorKind> {
        let region = region.or(self.settings.region.as_deref());
        let known = |(known, _): &&(Option<String>, Client)| known.as_deref() == region;
        if let Some((_, client)) = self.clients.lock().iter().find(known) {
            return Ok(client.clone());
        }
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = &self.settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &self.settings.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let timeouts = TimeoutConfig::builder().operation_timeout(self.settings.timeout).build();
        let config = loader.timeout_config(timeouts).load().await;
        if config.region().is_none() {
            return Err(KmsErrorKind::NoRegion);
        }
        let client = Client::new(&config);
        self.clients.lock().push((region.map(str::to_owned), client.clone()));
        Ok(client)
    }

    /// Runs one call, everything it needs included, within the time limit.
    async fn call<T>(
        &self,
        operation: Operation,
        key_id: &str,
        region: Option<&str>,
        call: impl AsyncFnOnce(Client) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        let started = Instant::now();
        let whole_call = async { call(self.client(region).await?).await };
        let result = match tokio::time::timeout(self.settings.timeout, whole_call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(KmsErrorKind::TimedOut.into()),
        };
        result.map_err(|Failure { kind, answer }| KmsError {
            kind,
            operation,
            key_id: key_id.to_owned(),
            answer: Box::new(answer),
            elapsed: Some(started.elapsed()),
        })
    }
}

impl KeyProvider for AwsKms {
    async fn generate_data_key(&self, key_id: &KeyId, context: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        let name = key_id.to_string();
        self.call(Operation::GenerateDataKey, &name, region(key_id), async |client| {
            let output = client
                .generate_data_key()
                .key_id(&name)
                .key_spec(DataKeySpec::Aes256)
                .set_encryption_context(Some(context.for_kms()))
                .send()
                .await?;
            let dek = take_dek(output.plaintext)?;
            let key_arn = output.key_id.ok_or(KmsErrorKind::UnexpectedAnswer("no key id"))?;
            if !is_answer_for(key_id, &key_arn) {
                return Err(KmsErrorKind::UnexpectedAnswer(
                    "the data key is of another key than the one that was named",
                )
                .into());
            }
            let wrapped_dek =
                output.ciphertext_blob.ok_or(KmsErrorKind::UnexpectedAnswer("no wrapped data key"))?.into_inner();
            Ok(GeneratedKey { dek, wrapped: WrappedKey { provider: Provider::AwsKms, key_id: key_arn, wrapped_dek } })
        })
        .await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        let key_arn = &wrapped.key_id;
        self.call(Operation::Decrypt, key_arn, region_of_arn(key_arn), async |client| {
            let output = client
                .decrypt()
                .key_id(key_arn)
                .ciphertext_blob(Blob::new(wrapped.wrapped_dek.clone()))
                .set_encryption_context(Some(context.for_kms()))
                .send()
                .await?;
            let dek = take_dek(output.plaintext)?;
            match output.key_id {
                Some(confirmed) if confirmed == *key_arn => Ok(UnwrappedKey { dek, key_id: confirmed }),
                _ => Err(KmsErrorKind::UnexpectedAnswer("the data key was unwrapped by another key than named").into()),
            }
        })
        .await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &EncryptionContext,
        to: &KeyId,
    ) -> Result<WrappedKey, KmsError> {
        let name = to.to_string();
        self.call(Operation::ReEncrypt, &name, region(to).or(region_of_arn(&wrapped.key_id)), async |client| {
            let output = client
                .re_encrypt()
                .source_key_id(&wrapped.key_id)
                .ciphertext_blob(Blob::new(wrapped.wrapped_dek.clone()))
                .set_source_encryption_context(Some(context.for_kms()))
                .destination_key_id(&name)
                .set_destination_encryption_context(Some(context.for_kms()))
                .send()
                .await?;
            let key_arn = output.key_id.ok_or(KmsErrorKind::UnexpectedAnswer("no key id"))?;
            if !is_answer_for(to, &key_arn) || output.source_key_id.as_ref() != Some(&wrapped.key_id) {
                return Err(KmsErrorKind::UnexpectedAnswer(
                    "the data key was rewrapped with other keys than those named",
                )
                .into());
            }
            let wrapped_dek =
                output.ciphertext_blob.ok_or(KmsErrorKind::UnexpectedAnswer("no wrapped data key"))?.into_inner();
            Ok(WrappedKey { provider: Provider::AwsKms, key_id: key_arn, wrapped_dek })
        })
        .await
    }
}

fn region(key_id: &KeyId) -> Option<&str> {
    match key_id {
        KeyId::AwsArn { region, .. } => Some(region),
        KeyId::AwsName(_) | KeyId::Local(_) => None,
    }
}

fn region_of_arn(key_arn: &str) -> Option<&str> {
    KeyArn::parse(key_arn).map(|arn| arn.region)
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
    Dek::take_from(&mut bytes).ok_or(KmsErrorKind::UnexpectedAnswer("the data key is not 32 bytes long"))
}

/// Why a call failed, before it is known which one.
struct Failure {
    kind: KmsErrorKind,
    answer: Answer,
}

impl From<KmsErrorKind> for Failure {
    fn from(kind: KmsErrorKind) -> Self {
        Self { kind, answer: Answer::default() }
    }
}

impl<E> From<SdkError<E>> for Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let answer = Answer {
            code: error.code().map(str::to_owned),
            message: error.message().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
        };
        let kind = match &error {
            SdkError::TimeoutError(_) => KmsErrorKind::TimedOut,
            SdkError::ServiceError(service) => {
                classify(error.code().unwrap_or_default(), service.raw().status().as_u16(), error.message())
            }
            // What the SDK made of the body is not shown: it may quote it.
            SdkError::ResponseError(_) => KmsErrorKind::Unreachable("the answer could not be read".into()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => KmsErrorKind::TimedOut,
            _ => match credentials_error(&error) {
                Some(reason) => KmsErrorKind::NoCredentials(reason),
                None => KmsErrorKind::Unreachable(innermost_cause(&error)),
            },
        };
        Self { kind, answer }
    }
}

/// The class of an error code (AWS KMS API reference: common errors, and the errors of each operation).
fn classify(code: &str, status: u16, message: Option<&str>) -> KmsErrorKind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException" => KmsErrorKind::Throttled,
        "AccessDeniedException"
        | "KMSAccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "OptInRequired"
        | "NotAuthorized"
        | "InvalidGrantTokenException" => KmsErrorKind::AccessDenied,
        "DisabledException" | "KMSInvalidStateException" => KmsErrorKind::KeyUnusable,
        "NotFoundException" => KmsErrorKind::NotFound,
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsErrorKind::WrappedKeyRejected,
        _ if status == 429 => KmsErrorKind::Throttled,
        _ if status >= 500 || matches!(code, "KeyUnavailableException" | "DependencyTimeoutException") => {
            KmsErrorKind::Unreachable(format!("HTTP status {status}"))
        }
        _ => KmsErrorKind::InvalidRequest(message.unwrap_or("no message").to_owned()),
    }
}

fn credentials_error(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()).map(|cause| innermost_cause(cause))
}

/// The last cause in the chain, such as "Connection refused (os error 111)".
fn innermost_cause(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
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

    #[test]
    fn classes_of_error_codes() {
        for (code, status, kind) in [
            ("ThrottlingException", 400, KmsErrorKind::Throttled),
            ("", 429, KmsErrorKind::Throttled),
            ("AccessDeniedException", 400, KmsErrorKind::AccessDenied),
            ("DisabledException", 400, KmsErrorKind::KeyUnusable),
            ("KMSInvalidStateException", 400, KmsErrorKind::KeyUnusable),
            ("NotFoundException", 400, KmsErrorKind::NotFound),
            ("IncorrectKeyException", 400, KmsErrorKind::WrappedKeyRejected),
            ("KMSInternalException", 500, KmsErrorKind::Unreachable("HTTP status 500".into())),
            ("KeyUnavailableException", 500, KmsErrorKind::Unreachable("HTTP status 500".into())),
            ("ValidationException", 400, KmsErrorKind::InvalidRequest("no message".into())),
        ] {
            assert_eq!(classify(code, status, None), kind, "{code}");
        }
    }
}
