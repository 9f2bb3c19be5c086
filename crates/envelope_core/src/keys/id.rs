//! The key that a statement names, and the provider that has it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ArgumentError;
use crate::keys::arn::{KeyArn, canonical, is_alias, is_key_resource};

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
    /// Parses a key ARN, an alias ARN, `alias/name`, a key uuid, `mrk-...` or `local:name`. Hexadecimal digits become lower case, as
    /// KMS writes them: a key has one id here.
    ///
    /// # Errors
    /// [`ArgumentError::KeyId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ArgumentError> {
        if let Some(name) = text.strip_prefix("local:") {
            const NO_NAME: ArgumentError =
                ArgumentError::KeyId("behind local: come 1 to 64 of the characters A-Z a-z 0-9 _ . -");
            return LocalKeyName::parse(name).map(Self::Local).map_err(|_| NO_NAME);
        }
        if let Some(arn) = KeyArn::parse(text) {
            return Ok(Self::AwsArn { region: arn.region.to_owned(), arn: canonical(text).into_owned() });
        }
        if is_alias(text) || is_key_resource(text) {
            return Ok(Self::AwsName(canonical(text).into_owned()));
        }
        Err(ArgumentError::KeyId(what_is_wrong(text)))
    }

    /// Whether it is an alias, which can point to another key tomorrow.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        match self {
            Self::AwsName(name) => is_alias(name),
            Self::AwsArn { arn, .. } => KeyArn::parse(arn).is_some_and(|arn| arn.key().is_none()),
            Self::Local(_) => false,
        }
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
        if valid { Ok(Self(name.to_owned())) } else { Err(ArgumentError::LocalKeyName) }
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

/// Why a text is no key id, without a word of it.
fn what_is_wrong(text: &str) -> &'static str {
    match text {
        "" => "it is empty",
        _ if text.trim() != text => "it has white space around it",
        _ if text.starts_with("alias/") => "behind alias/ come 1 to 250 of the characters A-Z a-z 0-9 / _ -",
        _ if text.starts_with("arn:") => {
            "an ARN of KMS is arn:partition:kms:region:account:key/id or arn:partition:kms:region:account:alias/name"
        }
        _ if text.starts_with("mrk-") => "behind mrk- come 32 hexadecimal digits",
        _ => "it has none of the forms of one",
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
    fn a_key_has_one_id() {
        for (text, one) in [
            ("715C0818-5825-4245-A755-138a6d9a11e6", "715c0818-5825-4245-a755-138a6d9a11e6"),
            ("mrk-1234ABCD12ab34cd56ef1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab"),
            (
                "arn:aws:kms:us-west-2:111122223333:key/715C0818-5825-4245-A755-138A6D9A11E6",
                "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6",
            ),
            // Names are as they are.
            ("alias/My-App", "alias/My-App"),
            ("arn:aws:kms:us-west-2:111122223333:alias/App", "arn:aws:kms:us-west-2:111122223333:alias/App"),
            ("local:Dev", "local:Dev"),
        ] {
            assert_eq!(KeyId::parse(text).unwrap().to_string(), one);
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
            let error = KeyId::parse(text).unwrap_err();
            assert!(matches!(error, ArgumentError::KeyId(_)));
            assert!(["", "local:", "alias/"].contains(&text) || !error.to_string().contains(text), "{error}");
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
        assert!(matches!(check_resolved("dev"), Err(ArgumentError::KeyId(_))));
    }
}
