//! What an error of the SDK means.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;

use crate::kms::{Answer, KmsErrorKind};

/// Why a call failed, before it is known which one.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: KmsErrorKind,
    pub(super) answer: Answer,
}

impl Failure {
    /// Whether KMS answered, so that other keys in the same region may fare better.
    pub(super) fn was_answered(&self) -> bool {
        self.answer != Answer::default()
    }
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
            _ => match causes(&error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
                Some(CredentialsError::ProviderTimedOut(_)) => KmsErrorKind::TimedOut,
                Some(credentials) => KmsErrorKind::NoCredentials(innermost_cause(credentials)),
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
        | "OptInRequired"
        | "NotAuthorized"
        | "InvalidGrantTokenException" => KmsErrorKind::AccessDenied,
        // They say nothing about the key: it is the server's credentials or clock.
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "RequestExpired"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken" => KmsErrorKind::NoCredentials("KMS does not accept them".into()),
        "DisabledException" | "KMSInvalidStateException" => KmsErrorKind::KeyUnusable,
        "NotFoundException" => KmsErrorKind::NotFound,
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsErrorKind::WrappedKeyRejected,
        _ if status == 429 => KmsErrorKind::Throttled,
        _ if status >= 500 || matches!(code, "KeyUnavailableException" | "DependencyTimeoutException") => {
            KmsErrorKind::Unreachable(format!("HTTP status {status}"))
        }
        // A proxy in between, or no KMS at all.
        _ if status < 400 => KmsErrorKind::Unreachable("the answer could not be read".into()),
        "" => KmsErrorKind::Unreachable(format!("HTTP status {status}")),
        _ => KmsErrorKind::InvalidRequest(message.unwrap_or("no message").to_owned()),
    }
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
            ("", 200, KmsErrorKind::Unreachable("the answer could not be read".into())),
            ("", 403, KmsErrorKind::Unreachable("HTTP status 403".into())),
            ("ExpiredTokenException", 400, KmsErrorKind::NoCredentials("KMS does not accept them".into())),
            ("ValidationException", 400, KmsErrorKind::InvalidRequest("no message".into())),
        ] {
            assert_eq!(classify(code, status, None), kind, "{code}");
        }
    }
}
