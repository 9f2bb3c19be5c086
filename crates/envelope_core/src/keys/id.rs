//! The key that a statement names, and the provider that has it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ArgumentError;
use crate::keys::arn::{KeyArn, is_alias, is_key_resource};

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

/// Checks that a key id is in the form that values have: a key ARN, or `local:name`.
///
/// # Errors
/// [`ArgumentError::NotAKeyArn`] for an alias and other ids that only KMS can resolve, [`ArgumentError::KeyId`] for the rest.
pub fn check_resolved(key_id: &str) -> Result<(), ArgumentError> {
    match KeyId::parse(key_id)? {
        KeyId::Local(_) => Ok(()),
        KeyId::AwsArn { arn, .. } if KeyArn::parse(&arn).is_some_and(|arn| arn.key().is_some()) => Ok(()),
        KeyId::AwsArn { .. } | KeyId::AwsName(_) => Err(ArgumentError::NotAKeyArn(key_id.to_owned())),
    }
}

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
    fn only_a_key_arn_or_a_local_key_is_resolved() {
        const UUID: &str = "715c0818-5825-4245-a755-138a6d9a11e6";
        assert_eq!(check_resolved("local:dev"), Ok(()));
        assert_eq!(check_resolved(&format!("arn:aws:kms:us-west-2:111122223333:key/{UUID}")), Ok(()));
        let mrk = "mrk-1234abcd12ab34cd56ef1234567890ab";
        assert_eq!(check_resolved(&format!("arn:aws:kms:us-west-2:111122223333:key/{mrk}")), Ok(()));
        for key_id in ["alias/app", "arn:aws:kms:us-west-2:111122223333:alias/app", UUID, mrk] {
            assert_eq!(check_resolved(key_id), Err(ArgumentError::NotAKeyArn(key_id.to_owned())));
        }
        assert_eq!(check_resolved("dev"), Err(ArgumentError::KeyId("dev".to_owned())));
    }
}
