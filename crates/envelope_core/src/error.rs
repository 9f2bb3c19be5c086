//! What can go wrong with a value or an argument. The closed set of docs/FORMAT.md, and nothing secret in it.

use thiserror::Error;

use crate::value_type::ValueType;

/// Why bytes are not a value that can be opened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ValueError {
    /// The magic number is missing.
    #[error("not an encrypted value")]
    NotAnEnvelope,
    /// A field runs past the end of the value.
    #[error("encrypted value is truncated")]
    Truncated,
    /// A field holds what no writer writes: the name of the field.
    #[error("encrypted value is malformed: {0}")]
    Malformed(&'static str),
    /// A format version that this release does not know.
    #[error("encrypted value has unsupported format version {0}")]
    UnsupportedVersion(u8),
    /// A cipher suite that this release does not know.
    #[error("encrypted value has unsupported cipher suite {0}")]
    UnsupportedSuite(u8),
    /// The REF flag: the wrapped data key is elsewhere. Reserved in version 1.
    #[error("encrypted value refers to a data key outside the value, which is not supported")]
    UnsupportedReference,
    /// No wrapped data key is of a provider that this release knows: the first one's provider byte.
    #[error("encrypted value has unsupported key provider {0}")]
    UnsupportedProvider(u8),
    /// The one error of everything cryptographic: tampered, wrong key, wrong context, wrong, missing or superfluous aad.
    #[error("encrypted value could not be authenticated")]
    AuthenticationFailed,
    /// The value was encrypted from another type.
    #[error("encrypted value holds {found}, not {wanted}")]
    WrongType {
        /// The type in the value's header.
        found: ValueType,
        /// The type asked for.
        wanted: ValueType,
    },
}

/// Why an argument of a function cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ArgumentError {
    /// Not one of the forms of a key id: what is wrong. Never the text itself, which is a plaintext where somebody has swapped
    /// two arguments.
    #[error("invalid key id: {0}")]
    KeyId(&'static str),
    /// Not a name for a key of the local provider.
    #[error("invalid local key name")]
    LocalKeyName,
    /// Not a flat object of strings, or too large: what is wrong.
    #[error("invalid encryption context: {0}")]
    EncryptionContext(&'static str),
    /// What is not a key id in `allowed_keys`: the how-manieth entry.
    #[error("invalid list of allowed keys: entry {0} is not a key id")]
    AllowedKeys(usize),
    /// Names no single key without asking KMS: an alias, or a key id without its region and account.
    #[error("\"{0}\" is not a key ARN")]
    NotAKeyArn(String),
    /// Not a JSON object that says how to encrypt a column: what is wrong.
    #[error("invalid rule for a column: {0}")]
    ColumnRule(String),
}
