//! How a value names the key that wraps its data key: compact for KMS key ARNs, text for the rest.
//!
//! ```text
//! 02 | flags | account u48 | uuid 16 | region ASCII      a KMS key ARN; flags: bits 0-1 partition, bit 7 multi-Region
//! 01 | UTF-8 text                                        any other key
//! ```
//! An ARN that fits the compact form always takes it, so that a key has one encoding only.

use std::borrow::Cow;

use crate::error::ValueError;
use crate::keys::{KeyArn, LocalKeyName, Provider, canonical};

const TEXT: u8 = 1;
const COMPACT: u8 = 2;
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];
const PARTITION_BITS: u8 = 0b11;
const MULTI_REGION: u8 = 0x80;
const ACCOUNT_END: u64 = 1_000_000_000_000;
/// Bytes of the compact form before the region: form, flags, account, uuid.
const COMPACT_FIXED_BYTES: usize = 1 + 1 + 6 + 16;

/// Writes the reference of a key: a key ARN, or `local:name`. `None` if it is longer than 255 bytes.
#[must_use]
pub fn write(key_id: &str) -> Option<Vec<u8>> {
    KeyArn::parse(key_id)
        .and_then(|arn| compact(&arn))
        .or_else(|| (key_id.len() < usize::from(u8::MAX)).then(|| [&[TEXT], key_id.as_bytes()].concat()))
}

/// The compact form, if the key has one.
fn compact(arn: &KeyArn<'_>) -> Option<Vec<u8>> {
    let mut flags = u8::try_from(PARTITIONS.iter().position(|partition| *partition == arn.partition)?).ok()?;
    let key = arn.key()?;
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
    let account: u64 = arn.account.parse().ok()?;
    let mut reference = vec![COMPACT, flags];
    reference.extend(&account.to_be_bytes()[2..]);
    reference.extend(uuid.to_be_bytes());
    reference.extend(arn.region.as_bytes());
    (reference.len() <= usize::from(u8::MAX)).then_some(reference)
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
    if !(is_canonical && is_key_of_provider) {
        return Err(MALFORMED);
    }
    Ok(match canonical(&key_id) {
        Cow::Borrowed(_) => key_id,
        // The text form can have it in upper case.
        Cow::Owned(canonical) => canonical,
    })
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
            assert_eq!(parse(provider, &reference).as_deref(), Ok(&*canonical(key_id)));
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
