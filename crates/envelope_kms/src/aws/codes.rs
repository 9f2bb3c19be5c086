//! The error codes of AWS KMS and what they mean: one table, from the AWS KMS API Reference ("Common Errors" and the errors of
//! each operation), and from the codes that AWS SDKs retry.

/// What an error code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Too many requests: for a while.
    Throttled,
    /// A fault of the service: for a while.
    Fault,
    /// The key cannot be used for a while: its key store, or something else that KMS depends on, does not answer.
    KeyUnavailable,
    /// For a while, or since the key is disabled or pending deletion: the message may say, and DescribeKey does.
    KeyState,
    /// The key is disabled.
    KeyUnusable,
    /// The credentials may not use the key.
    AccessDenied,
    /// KMS does not accept the credentials.
    Credentials,
    /// The time of the signature is not that of KMS.
    Clock,
    /// No such key or alias.
    NotFound,
    /// The wrapped data key was changed, or belongs to another key or encryption context.
    WrappedKeyRejected,
    /// The key is of another kind, or for another use.
    WrongKey,
    /// Something else is wrong with the request.
    InvalidRequest,
}

/// Codes and their classes. A `*` at the end stands for any rest.
pub(super) const CODES: &[(&str, Class)] = &[
    ("ThrottlingException", Class::Throttled),
    ("Throttling", Class::Throttled),
    ("ThrottledException", Class::Throttled),
    ("RequestThrottled", Class::Throttled),
    ("RequestThrottledException", Class::Throttled),
    ("RequestLimitExceeded", Class::Throttled),
    ("TooManyRequestsException", Class::Throttled),
    ("LimitExceededException", Class::Throttled),
    ("BandwidthLimitExceeded", Class::Throttled),
    ("ProvisionedThroughputExceededException", Class::Throttled),
    ("SlowDown", Class::Throttled),
    ("KMSInternalException", Class::Fault),
    ("InternalFailure", Class::Fault),
    ("InternalError", Class::Fault),
    ("InternalServerError", Class::Fault),
    ("ServiceUnavailable", Class::Fault),
    ("ServiceUnavailableException", Class::Fault),
    ("RequestTimeout", Class::Fault),
    ("RequestTimeoutException", Class::Fault),
    ("DependencyTimeoutException", Class::KeyUnavailable),
    ("KeyUnavailableException", Class::KeyUnavailable),
    ("CloudHsmCluster*", Class::KeyUnavailable),
    ("CustomKeyStore*", Class::KeyUnavailable),
    ("XksProxy*", Class::KeyUnavailable),
    ("XksKey*", Class::KeyUnavailable),
    ("KMSInvalidStateException", Class::KeyState),
    ("DisabledException", Class::KeyUnusable),
    ("AccessDeniedException", Class::AccessDenied),
    ("AccessDenied", Class::AccessDenied),
    ("KMSAccessDeniedException", Class::AccessDenied),
    ("OptInRequired", Class::AccessDenied),
    ("NotAuthorized", Class::AccessDenied),
    ("UnauthorizedOperation", Class::AccessDenied),
    ("InvalidGrantTokenException", Class::AccessDenied),
    ("ExpiredTokenException", Class::Credentials),
    ("ExpiredToken", Class::Credentials),
    ("TokenRefreshRequired", Class::Credentials),
    ("InvalidToken", Class::Credentials),
    ("UnrecognizedClientException", Class::Credentials),
    ("InvalidClientTokenId", Class::Credentials),
    ("InvalidAccessKeyId", Class::Credentials),
    ("AuthFailure", Class::Credentials),
    ("InvalidSignatureException", Class::Credentials),
    ("SignatureDoesNotMatch", Class::Credentials),
    ("IncompleteSignature", Class::Credentials),
    ("IncompleteSignatureException", Class::Credentials),
    ("MissingAuthenticationToken", Class::Credentials),
    ("MissingAuthenticationTokenException", Class::Credentials),
    ("RequestExpired", Class::Clock),
    ("RequestInTheFuture", Class::Clock),
    ("RequestTimeTooSkewed", Class::Clock),
    ("NotFoundException", Class::NotFound),
    ("InvalidCiphertextException", Class::WrappedKeyRejected),
    ("IncorrectKeyException", Class::WrappedKeyRejected),
    ("InvalidKeyUsageException", Class::WrongKey),
    ("UnsupportedOperationException", Class::WrongKey),
    ("InvalidArnException", Class::InvalidRequest),
    ("InvalidAliasNameException", Class::InvalidRequest),
    ("InvalidGrantIdException", Class::InvalidRequest),
    ("DryRunOperationException", Class::InvalidRequest),
    ("ValidationException", Class::InvalidRequest),
    ("ValidationError", Class::InvalidRequest),
    ("SerializationException", Class::InvalidRequest),
    ("InvalidAction", Class::InvalidRequest),
    ("UnknownOperationException", Class::InvalidRequest),
];

/// What AWS says of a key that is out of use, in the messages of `KMSInvalidStateException`.
const OUT_OF_USE: [&str; 4] = ["is disabled", "pending deletion", "pending replica deletion", "pending import"];

/// The class of a code, and of the message that came with it. `None`: the code is not known.
pub(super) fn class_of(code: &str, message: Option<&str>) -> Option<Class> {
    let fits = |name: &str| match name.strip_suffix('*') {
        Some(beginning) => code.starts_with(beginning),
        None => code == name,
    };
    let class = CODES.iter().find(|(name, _)| fits(name))?.1;
    let message = message.unwrap_or_default().to_ascii_lowercase();
    Some(match class {
        Class::KeyState if OUT_OF_USE.iter().any(|text| message.contains(text)) => Class::KeyUnusable,
        // "Signature expired: 20261126T100000Z is now earlier than 20261126T110000Z", and "Signature not yet current".
        Class::Credentials if is_about_time(&message) => Class::Clock,
        class => class,
    })
}

fn is_about_time(message: &str) -> bool {
    message.starts_with("signature expired") || message.starts_with("signature not yet current")
}
