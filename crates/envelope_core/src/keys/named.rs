//! A named key: what the options of a foreign server of the wrapper `envelope_pg` say (docs/design/NAMED_KEYS.md).

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::context::EncryptionContext;
use crate::keys::arn::is_same_key;
use crate::keys::id::check_resolved;

/// What stands before the name of a key where a key id is wanted.
pub const NAME_PREFIX: &str = "key:";

/// What is done with a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// New values are sealed.
    Encrypt,
    /// Values are opened.
    Decrypt,
}

/// The options of a named key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedKey {
    /// The key ARN or `local:name` that seals new values.
    pub key_id: String,
    /// What new values get as their encryption context.
    pub encryption_context: EncryptionContext,
    /// How long its data keys may be used before KMS is asked again, in place of `envelope_pg.cache_ttl`.
    pub cache_ttl: Option<Duration>,
    old_key_ids: Vec<String>,
    encrypts: bool,
    decrypts: bool,
}

/// What is wrong with an option.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum OptionError {
    /// There is no such option: its name.
    #[error("invalid option \"{0}\"")]
    Unknown(String),
    /// It must be there.
    #[error("option \"key_id\" is missing")]
    NoKey,
    /// Neither a key ARN nor `local:name`: the option's name.
    #[error("option \"{0}\" must name keys by key ARN, or local:name")]
    NotAKey(&'static str),
    /// Not a flat object of strings.
    #[error("option \"encryption_context\" is invalid: {0}")]
    EncryptionContext(String),
    /// Neither `encrypt` nor `decrypt` nor both.
    #[error("option \"operations\" must be encrypt, decrypt, or both with a comma between them")]
    Operations,
    /// No time, or one that is too long.
    #[error("option \"cache_ttl\" must be from 1 s to 1 d, as a whole number of s, min, h or d")]
    CacheTtl,
}

impl NamedKey {
    /// Parses the options of a server: name and value of each.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_options<'a>(options: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, OptionError> {
        let mut options: BTreeMap<_, _> = options.into_iter().collect();
        let key_id = parse_key("key_id", options.remove("key_id").ok_or(OptionError::NoKey)?)?;
        let old_key_ids = match options.remove("old_key_ids") {
            Some(list) => list.split(',').map(|key_id| parse_key("old_key_ids", key_id)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let encryption_context = match options.remove("encryption_context") {
            Some(json) => {
                EncryptionContext::from_json(json).map_err(|error| OptionError::EncryptionContext(error.to_string()))?
            }
            None => EncryptionContext::default(),
        };
        let (encrypts, decrypts) = match options.remove("operations") {
            Some(list) => parse_operations(list)?,
            None => (true, true),
        };
        let cache_ttl =
            options.remove("cache_ttl").map(|text| parse_ttl(text).ok_or(OptionError::CacheTtl)).transpose()?;
        match options.into_keys().next() {
            Some(name) => Err(OptionError::Unknown(name.to_owned())),
            None => Ok(Self { key_id, encryption_context, cache_ttl, old_key_ids, encrypts, decrypts }),
        }
    }

    /// Whether the name stands for a key: the one that seals, or one of those that it still opens.
    #[must_use]
    pub fn names(&self, key_id: &str) -> bool {
        std::iter::once(&self.key_id).chain(&self.old_key_ids).any(|named| is_same_key(named, key_id))
    }

    /// Whether the name is good for a use of a key that it stands for.
    #[must_use]
    pub fn allows(&self, what: Use, key_id: &str) -> bool {
        match what {
            Use::Encrypt => self.encrypts && is_same_key(&self.key_id, key_id),
            Use::Decrypt => self.decrypts && self.names(key_id),
        }
    }
}

fn parse_key(option: &'static str, key_id: &str) -> Result<String, OptionError> {
    let key_id = key_id.trim();
    check_resolved(key_id).map(|()| key_id.to_owned()).map_err(|_| OptionError::NotAKey(option))
}

/// As PostgreSQL reads a setting in seconds; not 0, and not so long that a revoked key would serve for days.
fn parse_ttl(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 60 * 60;
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" | "s" => 1,
        "min" => 60,
        "h" => 60 * 60,
        "d" => DAY,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=DAY).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn parse_operations(list: &str) -> Result<(bool, bool), OptionError> {
    list.split(',').try_fold((false, false), |(encrypts, decrypts), operation| match operation.trim() {
        "encrypt" => Ok((true, decrypts)),
        "decrypt" => Ok((encrypts, true)),
        _ => Err(OptionError::Operations),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
    const OLD: &str = "arn:aws:kms:us-west-2:111122223333:key/815c0818-5825-4245-a755-138a6d9a11e6";

    #[test]
    fn seals_with_one_key_and_opens_with_the_old_ones_too() {
        let old = format!("{OLD}, local:dev");
        let named = NamedKey::from_options([("key_id", KEY), ("old_key_ids", &old)]).unwrap();
        assert!(named.allows(Use::Encrypt, KEY));
        assert!(!named.allows(Use::Encrypt, OLD));
        for key_id in [KEY, OLD, "local:dev"] {
            assert!(named.allows(Use::Decrypt, key_id), "{key_id}");
        }
        assert!(!named.allows(Use::Decrypt, "local:dev2"));
    }

    #[test]
    fn operations_part_encrypt_from_decrypt() {
        for (operations, encrypts, decrypts) in
            [("encrypt", true, false), ("decrypt", false, true), ("decrypt, encrypt", true, true)]
        {
            let named = NamedKey::from_options([("key_id", "local:dev"), ("operations", operations)]).unwrap();
            assert_eq!(named.allows(Use::Encrypt, "local:dev"), encrypts, "{operations}");
            assert_eq!(named.allows(Use::Decrypt, "local:dev"), decrypts, "{operations}");
            assert!(named.names("local:dev"));
        }
    }

    #[test]
    fn a_replica_is_the_same_key() {
        let west = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        let named = NamedKey::from_options([("key_id", west)]).unwrap();
        assert!(named.allows(Use::Decrypt, &west.replace("us-west-2", "eu-central-1")));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |options: &[(&str, &str)]| NamedKey::from_options(options.iter().copied()).unwrap_err();
        assert_eq!(error(&[]), OptionError::NoKey);
        assert_eq!(error(&[("key_id", "alias/app")]), OptionError::NotAKey("key_id"));
        assert_eq!(error(&[("key_id", KEY), ("old_key_ids", "")]), OptionError::NotAKey("old_key_ids"));
        assert_eq!(error(&[("key_id", KEY), ("key", "x")]), OptionError::Unknown("key".to_owned()));
        assert_eq!(error(&[("key_id", KEY), ("operations", "all")]), OptionError::Operations);
        assert!(matches!(error(&[("key_id", KEY), ("encryption_context", "[]")]), OptionError::EncryptionContext(_)));
        for ttl in ["", "0", "0h", "-1", "1.5h", "2d", "1 week", "1ms", "h", "99999999999999999999"] {
            assert_eq!(error(&[("key_id", KEY), ("cache_ttl", ttl)]), OptionError::CacheTtl, "{ttl}");
        }
    }

    #[test]
    fn has_a_time_of_its_own() {
        let ttl = |text| NamedKey::from_options([("key_id", KEY), ("cache_ttl", text)]).unwrap().cache_ttl;
        for (text, seconds) in [("1", 1), ("90s", 90), ("15 min", 900), ("1h", 3_600), (" 1d ", 86_400)] {
            assert_eq!(ttl(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(NamedKey::from_options([("key_id", KEY)]).unwrap().cache_ttl, None);
    }
}
