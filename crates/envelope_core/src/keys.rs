//! The key hierarchy on one screen.
//!
//! ```text
//! KeyId            what a statement names: a KMS key or alias, or a key of the local provider
//!   -> KEK         stays in the key provider
//!     -> Dek       32 bytes from the provider's GenerateDataKey; dropped as soon as the two below are derived
//!                  PRK = HKDF-Extract-SHA-256(salt = "", DEK)                              RFC 5869, section 2.2
//!       -> K       HKDF-Expand(PRK, "envelope_pg/v1/" || suite || "key", 32): XAES-256-GCM key      section 2.3
//!       -> C       HKDF-Expand(PRK, "envelope_pg/v1/" || suite || "commit", 32): commitment, public
//! WrappedKey       the DEK under the KEK, as it travels in each value
//! ```

use std::fmt;

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use crate::cipher::xaes::KEY_BYTES;
use crate::error::ArgumentError;
use crate::format::SUITE;
use crate::key_reference::KeyArn;

const LABEL: &[u8] = b"envelope_pg/v1/";

/// A plaintext data key. Zeroized when dropped; has no Debug. Boxed: a value that moves leaves its bytes behind, unwiped, on
/// the stack or in the future that it came from.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Dek(Box<[u8; KEY_BYTES]>);

impl Dek {
    /// Takes a data key out of a buffer, and wipes the buffer. `None` unless it holds exactly 32 bytes.
    #[must_use]
    pub fn take_from(buffer: &mut [u8]) -> Option<Self> {
        let dek = (buffer.len() == KEY_BYTES).then(|| {
            let mut dek = Self(Box::new([0; KEY_BYTES]));
            dek.0.copy_from_slice(buffer);
            dek
        });
        buffer.zeroize();
        dek
    }

    /// The bytes, for a key provider to wrap.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What values under it commit to.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        self.derive(SUITE).1
    }

    /// Another copy, for another holder.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// K and C of a suite.
    pub(crate) fn derive(&self, suite: u8) -> (SealingKeyBytes, Commitment) {
        let prk = Hkdf::<Sha256>::new(None, &*self.0);
        let mut key = SealingKeyBytes([0; KEY_BYTES]);
        let mut commitment = [0; KEY_BYTES];
        for (label, output) in [(&b"key"[..], &mut key.0), (b"commit", &mut commitment)] {
            prk.expand_multi_info(&[LABEL, &[suite], label], output).expect("32 bytes are fewer than 255 hashes");
        }
        (key, Commitment(commitment))
    }
}

/// K, on its way into the cipher. Zeroized when dropped; has no Debug.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SealingKeyBytes(pub(crate) [u8; KEY_BYTES]);

/// C: commits to the data key, and names it in public.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Commitment(pub [u8; KEY_BYTES]);

/// Who wraps a data key. The numbers are those of the value format.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[repr(u8)]
pub enum Provider {
    /// AWS KMS.
    AwsKms = 1,
    /// The key file of the local provider.
    Local = 2,
}

impl Provider {
    /// The provider of a byte in a value.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::AwsKms),
            2 => Some(Self::Local),
            _ => None,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AwsKms => "aws-kms",
            Self::Local => "local",
        })
    }
}

/// A data key as it travels in values: encrypted under a key of its provider.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "UncheckedWrappedKey")]
pub struct WrappedKey {
    /// Who can unwrap it.
    pub provider: Provider,
    /// The key that wraps it: a key ARN, or `local:name`. Never an alias.
    pub key_id: String,
    /// The wrapped data key: the CiphertextBlob of KMS, or the local provider's.
    pub wrapped_dek: Vec<u8>,
}

/// A [`WrappedKey`] from somebody else.
#[derive(Deserialize)]
struct UncheckedWrappedKey {
    provider: Provider,
    key_id: String,
    wrapped_dek: Vec<u8>,
}

impl TryFrom<UncheckedWrappedKey> for WrappedKey {
    type Error = ArgumentError;

    fn try_from(unchecked: UncheckedWrappedKey) -> Result<Self, ArgumentError> {
        let UncheckedWrappedKey { provider, key_id, wrapped_dek } = unchecked;
        match KeyId::parse(&key_id)?.provider() == provider {
            true => Ok(Self { provider, key_id, wrapped_dek }),
            false => Err(ArgumentError::KeyId(key_id)),
        }
    }
}

/// The key that a statement names.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyId {
    /// A key of the local provider: the name behind `local:`.
    Local(LocalKeyName),
    /// A KMS key or alias by ARN: its region, and the ARN.
    AwsArn {
        /// The region in the ARN.
        region: String,
        /// The whole ARN.
        arn: String,
    },
    /// A KMS key id or alias name, in the region of the settings.
    AwsName(String),
}

impl KeyId {
    /// Parses a key ARN, an alias ARN, `alias/name`, a key uuid, `mrk-...` or `local:name`.
    ///
    /// # Errors
    /// [`ArgumentError::KeyId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ArgumentError> {
        let invalid = || ArgumentError::KeyId(shorten(text));
        if let Some(name) = text.strip_prefix("local:") {
            return LocalKeyName::parse(name).map(Self::Local).map_err(|_| invalid());
        }
        if let Some(arn) = KeyArn::parse(text) {
            return Ok(Self::AwsArn { region: arn.region.to_owned(), arn: text.to_owned() });
        }
        if is_alias(text) || is_key_resource(text) {
            return Ok(Self::AwsName(text.to_owned()));
        }
        Err(invalid())
    }

    /// The provider that has the key.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::Local(_) => Provider::Local,
            Self::AwsArn { .. } | Self::AwsName(_) => Provider::AwsKms,
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(name) => write!(formatter, "local:{name}"),
            Self::AwsArn { arn, .. } => formatter.write_str(arn),
            Self::AwsName(name) => formatter.write_str(name),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = ArgumentError;

    fn try_from(text: String) -> Result<Self, ArgumentError> {
        Self::parse(&text)
    }
}

impl From<KeyId> for String {
    fn from(key_id: KeyId) -> Self {
        key_id.to_string()
    }
}

/// The name of a key of the local provider: 1 to 64 of `A-Z a-z 0-9 _ . -`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LocalKeyName(String);

impl LocalKeyName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ArgumentError::LocalKeyName`].
    pub fn parse(name: &str) -> Result<Self, ArgumentError> {
        let valid = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if valid { Ok(Self(name.to_owned())) } else { Err(ArgumentError::LocalKeyName(shorten(name))) }
    }

    /// The name, without `local:`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LocalKeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `alias/name`: KMS allows 1 to 256 of `A-Z a-z 0-9 / _ -` in all (API reference, CreateAlias).
pub(crate) fn is_alias(text: &str) -> bool {
    text.strip_prefix("alias/").is_some_and(|name| {
        !name.is_empty()
            && text.len() <= 256
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte))
    })
}

/// A key uuid, or `mrk-` and 32 hexadecimal digits.
pub(crate) fn is_key_resource(text: &str) -> bool {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(digits) = text.strip_prefix("mrk-") {
        return is_hex(digits, 32);
    }
    let groups: Vec<_> = text.split('-').collect();
    groups.len() == 5 && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| is_hex(group, length))
}

/// What an error message shows of a key id that somebody mistyped.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_form() {
        for (text, provider) in [
            ("local:dev", Provider::Local),
            ("alias/my-app/ssn", Provider::AwsKms),
            ("715c0818-5825-4245-a755-138a6d9a11e6", Provider::AwsKms),
            ("mrk-1234abcd12ab34cd56ef1234567890ab", Provider::AwsKms),
            ("arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6", Provider::AwsKms),
            ("arn:aws-cn:kms:cn-north-1:111122223333:alias/app", Provider::AwsKms),
        ] {
            let key_id = KeyId::parse(text).unwrap();
            assert_eq!(key_id.provider(), provider);
            assert_eq!(key_id.to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "dev",
            "local:",
            "local:a b",
            "local:../x",
            "alias/",
            "alias/a b",
            "715c0818",
            "mrk-123",
            "arn:aws:kms:us-west-2:111122223333:key/",
            "arn:aws:kms:evil.example/:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6",
            "arn:aws:s3:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6",
            " local:dev",
        ] {
            assert_eq!(KeyId::parse(text), Err(ArgumentError::KeyId(text.to_owned())));
        }
    }

    #[test]
    fn a_data_key_is_32_bytes_and_leaves_no_copy() {
        let mut buffer = [7; KEY_BYTES];
        assert!(Dek::take_from(&mut buffer).is_some());
        assert_eq!(buffer, [0; KEY_BYTES]);
        assert!(Dek::take_from(&mut [7; 16]).is_none());
        assert!(Dek::take_from(&mut [7; 33]).is_none());
    }
}
