//! Why a key provider did not do what it was asked. Nothing secret in it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::context::EncryptionContext;
use crate::keys::KeyArn;

/// What was asked, by the name of the KMS operation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Operation {
    /// Make a data key.
    GenerateDataKey,
    /// Unwrap a data key.
    Decrypt,
    /// Rewrap a data key.
    ReEncrypt,
    /// Look up the state of a key whose use failed.
    DescribeKey,
    /// Change the key file of the local provider.
    ChangeKeyring,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::GenerateDataKey => "GenerateDataKey",
            Self::Decrypt => "Decrypt",
            Self::ReEncrypt => "ReEncrypt",
            Self::DescribeKey => "DescribeKey",
            Self::ChangeKeyring => "Change of the key file",
        })
    }
}

/// The class of an error: what a client or an administrator would do about it.
#[derive(Clone, Debug, Deserialize, Eq, Error, PartialEq, Serialize)]
pub enum KmsErrorKind {
    /// No answer, or the answer that the service has a fault: why.
    #[error("KMS is unreachable")]
    Unreachable(String),
    /// No answer in time.
    #[error("KMS did not answer in time")]
    TimedOut,
    /// The server has no AWS credentials, or KMS does not accept them: why.
    #[error("no usable AWS credentials")]
    NoCredentials(String),
    /// Too many requests, after all retries.
    #[error("KMS throttled the request")]
    Throttled,
    /// The server's own limit on calls left it no turn in time.
    #[error("the server's limit on KMS calls is reached")]
    HeldBack,
    /// The credentials may not use the key.
    #[error("KMS denied access to the key")]
    AccessDenied,
    /// The key cannot be used for a while, since its key store or another part of KMS does not answer: why.
    #[error("the key is unavailable for now")]
    KeyUnavailable(String),
    /// The key is disabled, pending deletion or otherwise out of use.
    #[error("the key is disabled or pending deletion")]
    KeyUnusable,
    /// No such key or alias.
    #[error("key not found")]
    NotFound,
    /// The wrapped data key was changed, or belongs to another key or encryption context.
    #[error("the wrapped data key could not be authenticated")]
    WrappedKeyRejected,
    /// KMS does not accept the request: why.
    #[error("invalid request to KMS")]
    InvalidRequest(String),
    /// The answer is not what KMS promises, so it is not trusted: what is wrong.
    #[error("unexpected answer from KMS")]
    UnexpectedAnswer(Cow<'static, str>),
    /// No region is known for a key that is not named by ARN.
    #[error("no AWS region for the key")]
    NoRegion,
    /// The setting for the local provider's key file is empty.
    #[error("the local key provider is off")]
    LocalProviderOff,
    /// The local provider's key file cannot be used: why.
    #[error("the local key file cannot be used")]
    Keyring(String),
    /// The statement may cause no more calls.
    #[error("the answer takes a call to KMS, and no more are allowed")]
    NoCallLeft,
    /// A local key with this name exists.
    #[error("local key already exists")]
    LocalKeyExists,
}

impl KmsErrorKind {
    /// The key could not be used there: another region may do.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut | Self::KeyUnavailable(_))
    }

    /// The service is unwell, which says nothing about the key: cached data keys may serve for a while.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::Throttled | Self::HeldBack)
    }

    /// The service has answered, and the answer is no: cached data keys must go.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::AccessDenied | Self::KeyUnusable | Self::NotFound | Self::WrappedKeyRejected)
    }
}

/// What KMS said about an error. Never about the data: KMS errors name keys and principals.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ErrorMetadata {
    /// The error code, such as `AccessDeniedException`.
    pub code: Option<String>,
    /// The message.
    pub message: Option<String>,
    /// The request id, for CloudTrail and AWS support.
    pub request_id: Option<String>,
}

/// Where a call went, as far as it got.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Endpoint {
    /// Host and port.
    pub host: Option<String>,
    /// The AWS region.
    pub region: Option<String>,
}

/// A failed call to a key provider.
#[derive(Clone, Debug, Deserialize, Eq, Error, PartialEq, Serialize)]
#[error("{kind}")]
pub struct KmsError {
    /// The class.
    pub kind: KmsErrorKind,
    /// What was asked.
    pub operation: Operation,
    /// The key that was named.
    pub key_id: String,
    /// What KMS said, if it answered.
    pub metadata: Box<ErrorMetadata>,
    /// Where the call went.
    pub endpoint: Box<Endpoint>,
    /// How often the call was tried in the key's own region.
    pub attempts: Option<u32>,
    /// A circuit breaker kept the call from being made: this is the error of an earlier one.
    pub breaker_was_open: bool,
    /// How long the call took, retries included.
    pub elapsed: Option<Duration>,
    /// How many calls to providers were begun because of the request.
    pub calls: u32,
}

impl KmsError {
    /// Whether KMS was asked at all: not if a circuit breaker or a limit kept the call from being made.
    #[must_use]
    pub fn was_made(&self) -> bool {
        !self.breaker_was_open && !matches!(self.kind, KmsErrorKind::NoCallLeft | KmsErrorKind::HeldBack)
    }

    /// An error without an answer of KMS's.
    #[must_use]
    pub fn new(kind: KmsErrorKind, operation: Operation, key_id: &str) -> Self {
        Self {
            calls: u32::from(!matches!(kind, KmsErrorKind::NoCallLeft | KmsErrorKind::HeldBack)),
            kind,
            operation,
            key_id: key_id.to_owned(),
            metadata: Box::default(),
            endpoint: Box::default(),
            attempts: None,
            breaker_was_open: false,
            elapsed: None,
        }
    }

    /// The call was not made, since the statement may cause no more of them.
    #[must_use]
    pub fn no_call_left(operation: Operation, key_id: &str) -> Self {
        Self::new(KmsErrorKind::NoCallLeft, operation, key_id)
    }

    /// An answer that is not trusted.
    #[must_use]
    pub fn unexpected(reason: &'static str, operation: Operation, key_id: &str) -> Self {
        Self::new(KmsErrorKind::UnexpectedAnswer(reason.into()), operation, key_id)
    }

    /// Whether access is denied. That can depend on the encryption context, so it says nothing about others.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.kind == KmsErrorKind::AccessDenied
    }

    /// Whether the refusal is of this data key: of one under the key that was asked, in its own region, since a key that is out
    /// of use, or is none, in one region may be in use in another; and if access is denied, one of the encryption context that
    /// was asked with.
    #[must_use]
    pub fn refuses(&self, key_id: &str, context: &EncryptionContext, asked_with: &EncryptionContext) -> bool {
        self.is_refusal_of_key() && self.names(key_id) && (!self.is_denial() || context == asked_with)
    }

    /// Whether the key that was asked is this one: named by its ARN, or by an id that no other key has.
    fn names(&self, key_id: &str) -> bool {
        if self.key_id.eq_ignore_ascii_case(key_id) {
            return true;
        }
        // A key that is no multi-Region key exists once; but where its id is not found, it may exist elsewhere.
        let key_of_id = || KeyArn::parse(key_id).filter(|arn| !arn.is_multi_region()).and_then(|arn| arn.key());
        self.kind == KmsErrorKind::KeyUnusable && key_of_id().is_some_and(|key| key.eq_ignore_ascii_case(&self.key_id))
    }

    /// Whether the provider refuses the key itself, so that its data keys must go, whatever the data key that was asked for:
    /// all of them, or those of the encryption context if it [is a denial](Self::is_denial). Who may not make data keys may
    /// still be allowed to unwrap them.
    #[must_use]
    pub fn is_refusal_of_key(&self) -> bool {
        match self.kind {
            KmsErrorKind::AccessDenied => self.operation == Operation::Decrypt,
            KmsErrorKind::KeyUnusable | KmsErrorKind::NotFound => self.operation != Operation::ReEncrypt,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever can store a value chooses the region of the key that it names.
    #[test]
    fn a_refusal_in_one_region_says_nothing_about_another() {
        const WEST: &str = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        const EAST: &str = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        const SINGLE: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
        let (none, other) =
            (EncryptionContext::default(), EncryptionContext::from_json(r#"{"a": "b"}"#).expect("a context"));
        for kind in [KmsErrorKind::NotFound, KmsErrorKind::KeyUnusable, KmsErrorKind::AccessDenied] {
            let error = |key_id: &str| KmsError::new(kind.clone(), Operation::Decrypt, key_id);
            assert!(error(WEST).refuses(WEST, &none, &none), "{kind:?}");
            assert!(!error(EAST).refuses(WEST, &none, &none), "{kind:?}");
            assert!(!error("mrk-1234abcd12ab34cd56ef1234567890ab").refuses(WEST, &none, &none), "{kind:?}");
            assert_eq!(error(SINGLE).refuses(SINGLE, &other, &none), kind != KmsErrorKind::AccessDenied);
            let by_id = error("715c0818-5825-4245-a755-138a6d9a11e6").refuses(SINGLE, &none, &none);
            assert_eq!(by_id, kind == KmsErrorKind::KeyUnusable, "an id that is not found may be elsewhere");
        }
        let throttled = KmsError::new(KmsErrorKind::Throttled, Operation::Decrypt, WEST);
        assert!(!throttled.refuses(WEST, &none, &none));
    }
}
