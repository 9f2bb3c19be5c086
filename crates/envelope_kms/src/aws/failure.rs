//! What an error of the SDK means.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use envelope_core::request::{ErrorMetadata, KmsErrorKind};

use super::codes::{Class, class_of};
use super::http::TooLarge;

/// Longer messages of KMS are cut.
const MAX_MESSAGE_BYTES: usize = 500;
const UNREADABLE: &str = "the answer could not be read";

/// Why a call failed, before it is known which one.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: KmsErrorKind,
    pub(super) metadata: ErrorMetadata,
}

impl Failure {
    /// What an error response tells; `None` for a success.
    pub(super) fn of_response(status: u16, request_id: Option<String>, body: &[u8]) -> Option<Self> {
        if status < 400 {
            return None;
        }
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        // AWS JSON 1.1: the code may have a namespace in front of it.
        let code = text("__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
        let message = text("message").or_else(|| text("Message"));
        let kind = classify(code.as_deref().unwrap_or_default(), status, message.as_deref());
        Some(Self { kind, metadata: ErrorMetadata { code, message, request_id } })
    }

    /// Whether KMS answered about the key, so that other keys in the same region may fare better. Without an error code it is
    /// the service, or something in front of it, that is unwell.
    pub(super) fn is_of_key(&self) -> bool {
        self.metadata.code.is_some()
    }

    /// Whether KMS refuses the credentials, so that newer ones may do.
    pub(super) fn is_refusal_of_credentials(&self) -> bool {
        self.is_of_key() && matches!(self.kind, KmsErrorKind::NoCredentials(_))
    }

    /// Whether it is left open if the key is out of use for good.
    pub(super) fn leaves_key_state_open(&self) -> bool {
        let ErrorMetadata { code, message, .. } = &self.metadata;
        code.as_deref().and_then(|code| class_of(code, message.as_deref())) == Some(Class::KeyState)
    }
}

impl From<KmsErrorKind> for Failure {
    fn from(kind: KmsErrorKind) -> Self {
        Self { kind, metadata: ErrorMetadata::default() }
    }
}

impl<E> From<SdkError<E>> for Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let metadata = ErrorMetadata {
            code: error.code().map(str::to_owned),
            message: error.message().map(str::to_owned),
            request_id: error.request_id().map(str::to_owned),
        };
        let kind = match &error {
            SdkError::TimeoutError(_) => KmsErrorKind::TimedOut,
            SdkError::ServiceError(service) => {
                classify(error.code().unwrap_or_default(), service.raw().status().as_u16(), error.message())
            }
            SdkError::ResponseError(_) if causes(&error).any(|cause| cause.is::<TooLarge>()) => {
                KmsErrorKind::UnexpectedAnswer("it is larger than any answer of KMS".into())
            }
            // What the SDK made of the body is not shown: it may quote it.
            SdkError::ResponseError(_) => KmsErrorKind::Unreachable(UNREADABLE.into()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => KmsErrorKind::TimedOut,
            _ => match causes(&error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
                Some(CredentialsError::ProviderTimedOut(_)) => KmsErrorKind::TimedOut,
                Some(credentials) => KmsErrorKind::NoCredentials(causes_of_credentials_error(credentials)),
                None => KmsErrorKind::Unreachable(innermost_cause(&error)),
            },
        };
        Self { kind, metadata }
    }
}

/// The class of an answer with an error.
fn classify(code: &str, status: u16, message: Option<&str>) -> KmsErrorKind {
    let because = |reason: &str| message.map_or(reason.to_owned(), |message| bounded(message).to_owned());
    match class_of(code, message) {
        Some(Class::Throttled) => KmsErrorKind::Throttled,
        Some(Class::Fault) => KmsErrorKind::Unreachable(format!("HTTP status {status}")),
        Some(Class::KeyUnavailable | Class::KeyState) => {
            KmsErrorKind::KeyUnavailable(because("its key store or another part of KMS does not answer"))
        }
        Some(Class::KeyUnusable) => KmsErrorKind::KeyUnusable,
        Some(Class::AccessDenied) => KmsErrorKind::AccessDenied,
        // The message is not shown: it may quote the request with its session token.
        Some(Class::Credentials) => KmsErrorKind::NoCredentials("KMS does not accept them".into()),
        Some(Class::Clock) => {
            KmsErrorKind::NoCredentials(format!("the clock of the server is wrong, by KMS's: {}", because(code)))
        }
        Some(Class::NotFound) => KmsErrorKind::NotFound,
        Some(Class::WrappedKeyRejected) => KmsErrorKind::WrappedKeyRejected,
        Some(Class::WrongKey | Class::InvalidRequest) => KmsErrorKind::InvalidRequest(because("no message")),
        None if status == 429 => KmsErrorKind::Throttled,
        None if status >= 500 => KmsErrorKind::Unreachable(format!("HTTP status {status}")),
        // A proxy in between, or no KMS at all.
        None if status < 400 => KmsErrorKind::Unreachable(UNREADABLE.into()),
        None if code.is_empty() => KmsErrorKind::Unreachable(format!("HTTP status {status}")),
        None => KmsErrorKind::InvalidRequest(because("no message")),
    }
}

/// A message is for a line of DETAIL.
fn bounded(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

/// What a provider of credentials says, from the outside in: "an error occurred while loading credentials" alone helps nobody.
fn causes_of_credentials_error(error: &CredentialsError) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in causes(error).map(ToString::to_string) {
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    bounded(&texts.join(": ")).to_owned()
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
    use super::super::codes::CODES;
    use super::*;

    #[test]
    fn a_response_tells_why_or_nothing() {
        let body = br#"{"__type": "com.amazonaws.kms#ThrottlingException", "message": "slow down"}"#;
        let failure = Failure::of_response(400, Some("id".into()), body).unwrap();
        assert_eq!(failure.kind, KmsErrorKind::Throttled);
        assert_eq!(failure.metadata.code.as_deref(), Some("ThrottlingException"));
        assert_eq!(failure.metadata.message.as_deref(), Some("slow down"));
        assert!(failure.is_of_key());
        assert!(!Failure::of_response(503, Some("id".into()), b"<html>").unwrap().is_of_key());
        assert!(Failure::of_response(200, None, b"{}").is_none());
    }

    /// Each code of the table, and the kind that its class comes to.
    #[test]
    fn kinds_of_all_codes() {
        for (code, class) in CODES {
            let code = code.replace('*', "NotActiveException");
            let kind = classify(&code, 400, Some("said so"));
            let expected = match class {
                Class::Throttled => KmsErrorKind::Throttled,
                Class::Fault => KmsErrorKind::Unreachable("HTTP status 400".into()),
                Class::KeyUnavailable | Class::KeyState => KmsErrorKind::KeyUnavailable("said so".into()),
                Class::KeyUnusable => KmsErrorKind::KeyUnusable,
                Class::AccessDenied => KmsErrorKind::AccessDenied,
                Class::Credentials => KmsErrorKind::NoCredentials("KMS does not accept them".into()),
                Class::Clock => {
                    KmsErrorKind::NoCredentials("the clock of the server is wrong, by KMS's: said so".into())
                }
                Class::NotFound => KmsErrorKind::NotFound,
                Class::WrappedKeyRejected => KmsErrorKind::WrappedKeyRejected,
                Class::WrongKey | Class::InvalidRequest => KmsErrorKind::InvalidRequest("said so".into()),
            };
            assert_eq!(kind, expected, "{code}");
            let worth_a_retry = [Class::Throttled, Class::Fault, Class::KeyUnavailable, Class::KeyState];
            assert_eq!(kind.is_outage(), worth_a_retry.contains(class), "{code}");
        }
    }

    #[test]
    fn kinds_of_codes_with_a_message_and_of_answers_without_a_code() {
        const EXPIRED: &str = "Signature expired: 20261126T100000Z is now earlier than 20261126T110000Z";
        for (code, status, message, kind) in [
            ("KMSInvalidStateException", 400, "arn:... is pending deletion.", KmsErrorKind::KeyUnusable),
            ("KMSInvalidStateException", 400, "arn:... is disabled.", KmsErrorKind::KeyUnusable),
            (
                "KMSInvalidStateException",
                400,
                "The external key store proxy did not respond to the request in time. Retry the request.",
                KmsErrorKind::KeyUnavailable(
                    "The external key store proxy did not respond to the request in time. Retry the request.".into(),
                ),
            ),
            (
                "InvalidSignatureException",
                400,
                EXPIRED,
                KmsErrorKind::NoCredentials(format!("the clock of the server is wrong, by KMS's: {EXPIRED}")),
            ),
            (
                "InvalidSignatureException",
                400,
                "The Canonical String should have been x-amz-security-token:abc",
                KmsErrorKind::NoCredentials("KMS does not accept them".into()),
            ),
            ("", 429, "", KmsErrorKind::Throttled),
            ("", 500, "", KmsErrorKind::Unreachable("HTTP status 500".into())),
            ("", 403, "", KmsErrorKind::Unreachable("HTTP status 403".into())),
            ("", 200, "", KmsErrorKind::Unreachable(UNREADABLE.into())),
            ("NewException", 503, "", KmsErrorKind::Unreachable("HTTP status 503".into())),
            ("NewException", 400, "new", KmsErrorKind::InvalidRequest("new".into())),
        ] {
            assert_eq!(classify(code, status, Some(message)), kind, "{code} {status} {message}");
        }
    }
}
