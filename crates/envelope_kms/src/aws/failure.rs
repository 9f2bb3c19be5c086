//! What an error of the SDK means.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use envelope_core::request::{Answer, KmsErrorKind};

/// Why a call failed, before it is known which one.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: KmsErrorKind,
    pub(super) answer: Answer,
}

impl Failure {
    /// The outage that a response tells of: `None` for a success, and for errors that are not worth another attempt.
    pub(super) fn of_response(status: u16, request_id: Option<String>, body: &[u8]) -> Option<Self> {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        // AWS JSON 1.1: the code may have a namespace in front of it.
        let code = text("__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
        let message = text("message").or_else(|| text("Message"));
        let kind = classify(code.as_deref().unwrap_or_default(), status, message.as_deref());
        (status >= 400 && kind.is_outage()).then_some(Self { kind, answer: Answer { code, message, request_id } })
    }

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
    fn a_response_tells_of_an_outage_or_of_nothing() {
        let body = br#"{"__type": "com.amazonaws.kms#ThrottlingException", "message": "slow down"}"#;
        let failure = Failure::of_response(400, Some("id".into()), body).unwrap();
        assert_eq!(failure.kind, KmsErrorKind::Throttled);
        assert_eq!(failure.answer.code.as_deref(), Some("ThrottlingException"));
        assert_eq!(failure.answer.message.as_deref(), Some("slow down"));
        assert!(failure.was_answered());
        assert!(Failure::of_response(503, None, b"<html>").is_some());
        assert!(Failure::of_response(200, None, b"{}").is_none());
        assert!(Failure::of_response(400, None, br#"{"__type": "AccessDeniedException"}"#).is_none());
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
            ("", 200, KmsErrorKind::Unreachable("the answer could not be read".into())),
            ("", 403, KmsErrorKind::Unreachable("HTTP status 403".into())),
            ("ExpiredTokenException", 400, KmsErrorKind::NoCredentials("KMS does not accept them".into())),
            ("ValidationException", 400, KmsErrorKind::InvalidRequest("no message".into())),
        ] {
            assert_eq!(classify(code, status, None), kind, "{code}");
        }
    }
}
