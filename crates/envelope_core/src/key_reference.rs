//! How a value names the key that wraps its data key: compact for KMS key ARNs, text for the rest.
//!
//! ```text
//! 02 | flags | account u48 | uuid 16 | region ASCII      a KMS key ARN; flags: bits 0-1 partition, bit 7 multi-Region
//! 01 | UTF-8 text                                        any other key
//! ```
//! An ARN that fits the compact form always takes it, so that a key has one encoding only.

use crate::error::{ArgumentError, ValueError};
use crate::keys::{KeyId, LocalKeyName, Provider, is_alias, is_key_resource};

const TEXT: u8 = 1;
const COMPACT: u8 = 2;
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];
const PARTITION_BITS: u8 = 0b11;
const MULTI_REGION: u8 = 0x80;
const ACCOUNT_END: u64 = 1_000_000_000_000;
/// Bytes of the compact form before the region: form, flags, account, uuid.
const COMPACT_FIXED_BYTES: usize = 1 + 1 + 6 + 16;

/// The parts of `arn:partition:kms:region:account:resource`, each of plain characters, borrowed from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyArn<'a> {
    /// Such as `aws`.
    pub partition: &'a str,
    /// Such as `us-west-2`.
    pub region: &'a str,
    /// 12 digits.
    pub account: &'a str,
    /// `key/...` or `alias/...`.
    pub resource: &'a str,
}

impl<'a> KeyArn<'a> {
    /// Parses the ARN of a KMS key or alias. The region becomes part of a host name, so nothing but `a-z 0-9 -` is let in.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let valid = arn == "arn"
            && partition.starts_with("aws")
            && is_label(partition)
            && service == "kms"
            && is_label(region)
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && (is_alias(resource) || resource.strip_prefix("key/").is_some_and(is_key_resource));
        valid.then_some(Self { partition, region, account, resource })
    }

    /// The id behind `key/`; `None` for an alias.
    #[must_use]
    pub fn key(&self) -> Option<&'a str> {
        self.resource.strip_prefix("key/")
    }

    /// Whether it is a multi-Region key, which has replicas with the same id in other regions.
    #[must_use]
    pub fn is_multi_region(&self) -> bool {
        self.key().is_some_and(|key| key.starts_with("mrk-"))
    }

    /// The ARN of the same key in another region.
    #[must_use]
    pub fn in_region(&self, region: &str) -> String {
        format!("arn:{}:kms:{region}:{}:{}", self.partition, self.account, self.resource)
    }

    /// The compact form, if the key has one.
    fn compact(&self) -> Option<Vec<u8>> {
        let mut flags = u8::try_from(PARTITIONS.iter().position(|partition| *partition == self.partition)?).ok()?;
        let key = self.key()?;
        if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let digits = match key.strip_prefix("mrk-") {
            Some(digits) => {
                flags |= MULTI_REGION;
                digits.to_owned()
            }
            None => key.replace('-', ""),
        };
        let uuid = u128::from_str_radix(&digits, 16).ok()?;
        let account: u64 = self.account.parse().ok()?;
        let mut reference = vec![COMPACT, flags];
        reference.extend(&account.to_be_bytes()[2..]);
        reference.extend(uuid.to_be_bytes());
        reference.extend(self.region.as_bytes());
        (reference.len() <= usize::from(u8::MAX)).then_some(reference)
    }
}

/// Whether two key ids name the same key, or replicas of the same multi-Region key.
#[must_use]
pub fn is_same_key(one: &str, other: &str) -> bool {
    one == other
        || KeyArn::parse(one).zip(KeyArn::parse(other)).is_some_and(|(one, other)| {
            one.is_multi_region()
                && (one.partition, one.account, one.resource) == (other.partition, other.account, other.resource)
        })
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

/// Whether a text can be the name of a region.
#[must_use]
pub fn is_region(text: &str) -> bool {
    is_label(text)
}

/// 1 to 63 of `a-z 0-9 -`, as in a host name (RFC 1035, section 2.3.1).
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Writes the reference of a key: a key ARN, or `local:name`. `None` if it is longer than 255 bytes.
#[must_use]
pub fn write(key_id: &str) -> Option<Vec<u8>> {
    KeyArn::parse(key_id)
        .and_then(|arn| arn.compact())
        .or_else(|| (key_id.len() < usize::from(u8::MAX)).then(|| [&[TEXT], key_id.as_bytes()].concat()))
}

/// Parses the reference of a key of a provider into its key ARN, or `local:name`.
///
/// # Errors
/// [`ValueError::Malformed`] for any other bytes than those that [`write`] makes.
pub fn parse(provider: Provider, reference: &[u8]) -> Result<String, ValueError> {
    const MALFORMED: ValueError = ValueError::Malformed("key reference");
    let (key_id, is_canonical) = match reference.split_first().ok_or(MALFORMED)? {
        (&TEXT, text) => {
            let key_id = std::str::from_utf8(text).map_err(|_| MALFORMED)?.to_owned();
            let is_canonical = write(&key_id).as_deref() == Some(reference);
            (key_id, is_canonical)
        }
        // Other bytes expand to another ARN, if to any.
        (&COMPACT, _) => (expand(reference).ok_or(MALFORMED)?, true),
        _ => return Err(MALFORMED),
    };
    let is_key_of_provider = match provider {
        Provider::AwsKms => KeyArn::parse(&key_id).is_some_and(|arn| arn.key().is_some()),
        Provider::Local => key_id.strip_prefix("local:").is_some_and(|name| LocalKeyName::parse(name).is_ok()),
    };
    if is_canonical && is_key_of_provider { Ok(key_id) } else { Err(MALFORMED) }
}

/// The ARN of a compact reference. This runs for every row with a CHECK on its header, so it builds one string.
fn expand(reference: &[u8]) -> Option<String> {
    let (fixed, region) = reference.split_first_chunk::<COMPACT_FIXED_BYTES>()?;
    let flags = fixed[1];
    let partition = PARTITIONS.get(usize::from(flags & PARTITION_BITS))?;
    let account = fixed[2..8].iter().fold(0, |account, byte| (account << 8) | u64::from(*byte));
    let region = std::str::from_utf8(region).ok()?;
    if flags & !(PARTITION_BITS | MULTI_REGION) != 0 || account >= ACCOUNT_END {
        return None;
    }
    let is_multi_region = flags & MULTI_REGION != 0;
    let mut arn = String::with_capacity(128);
    for part in ["arn:", partition, ":kms:", region, ":"] {
        arn.push_str(part);
    }
    let digit = |place: u32| char::from(b'0' + (account / 10_u64.pow(place) % 10) as u8);
    arn.extend((0..12).rev().map(digit));
    arn.push_str(if is_multi_region { ":key/mrk-" } else { ":key/" });
    for (index, byte) in fixed[8..].iter().enumerate() {
        if !is_multi_region && matches!(index, 4 | 6 | 8 | 10) {
            arn.push('-');
        }
        for nibble in [byte >> 4, byte & 0xf] {
            arn.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    Some(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for (provider, key_id, bytes) in [
            (Provider::AwsKms, "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6", 33),
            (
                Provider::AwsKms,
                "arn:aws-us-gov:kms:us-gov-west-1:000000000001:key/mrk-1234abcd12ab34cd56ef1234567890ab",
                37,
            ),
            (
                Provider::AwsKms,
                "arn:aws-iso:kms:us-iso-east-1:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6",
                84,
            ),
            (Provider::AwsKms, "arn:aws:kms:us-west-2:111122223333:key/715C0818-5825-4245-a755-138a6d9a11e6", 76),
            (Provider::Local, "local:dev", 10),
        ] {
            let reference = write(key_id).unwrap();
            assert_eq!(reference.len(), bytes, "{key_id}");
            assert_eq!(parse(provider, &reference).as_deref(), Ok(key_id));
        }
    }

    /// `parse` does not write a compact form again to compare it. So here is whether one key has one encoding.
    #[test]
    fn what_parses_is_what_write_makes() {
        let reference = write("arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6").unwrap();
        let mut accepted = 0;
        for place in 0..reference.len() {
            for byte in 0..=u8::MAX {
                let mut changed = reference.clone();
                changed[place] = byte;
                for provider in [Provider::AwsKms, Provider::Local] {
                    if let Ok(key_id) = parse(provider, &changed) {
                        assert_eq!(write(&key_id).as_ref(), Some(&changed), "{key_id}");
                        assert!(KeyArn::parse(&key_id).is_some_and(|arn| arn.key().is_some()), "{key_id}");
                        accepted += 1;
                    }
                }
            }
        }
        assert!(accepted > 16 * 256, "all of the uuid, and more");
        for bytes in 0..reference.len() {
            let cut = parse(Provider::AwsKms, &reference[..bytes]).ok();
            assert!(cut.is_none_or(|key_id| write(&key_id).as_deref() == Some(&reference[..bytes])));
        }
        let text =
            [&[TEXT], &b"arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6"[..]].concat();
        assert!(parse(Provider::AwsKms, &text).is_err(), "what has a compact form takes it");
    }

    #[test]
    fn replicas_are_the_same_key() {
        const WEST: &str = "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        const EAST: &str = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";
        assert_eq!(KeyArn::parse(WEST).unwrap().in_region("us-east-1"), EAST);
        assert!(is_same_key(WEST, EAST));
        assert!(!is_same_key(WEST, &EAST.replace("111122223333", "999922223333")));
        assert!(!is_same_key(WEST, &EAST.replace("90ab", "90ac")));
        let single = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
        assert!(is_same_key(single, single));
        assert!(!is_same_key(single, &single.replace("us-west-2", "us-east-1")));
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

    #[test]
    fn an_alias_or_a_key_of_another_provider_is_no_reference() {
        for (provider, key_id) in [
            (Provider::AwsKms, "alias/app"),
            (Provider::AwsKms, "arn:aws:kms:us-west-2:111122223333:alias/app"),
            (Provider::AwsKms, "local:dev"),
            (Provider::Local, "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6"),
            (Provider::Local, "local:a b"),
        ] {
            let reference = write(key_id).unwrap();
            assert_eq!(parse(provider, &reference), Err(ValueError::Malformed("key reference")), "{key_id}");
        }
    }
}
