//! The ARN of a KMS key or alias, and when two of them name the same key.

use std::borrow::Cow;

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
}

/// A key id with the hexadecimal digits of its uuid in lower case, as KMS writes them: the one id of a key. Aliases and local names
/// are as they are.
#[must_use]
pub fn canonical(key_id: &str) -> Cow<'_, str> {
    let resource = match KeyArn::parse(key_id) {
        Some(arn) => arn.key(),
        None => is_key_resource(key_id).then_some(key_id),
    };
    match resource {
        Some(key) if key.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            let (rest, key) = key_id.split_at(key_id.len() - key.len());
            Cow::Owned([rest, &key.to_ascii_lowercase()].concat())
        }
        _ => Cow::Borrowed(key_id),
    }
}

/// Whether two key ids name the same key, or replicas of the same multi-Region key.
#[must_use]
pub fn is_same_key(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let (one, other) = (&*canonical(one), &*canonical(other));
    one == other
        || KeyArn::parse(one).zip(KeyArn::parse(other)).is_some_and(|(one, other)| {
            one.is_multi_region()
                && (one.partition, one.account, one.resource) == (other.partition, other.account, other.resource)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(is_same_key(single, &single.replace("715c0818", "715C0818")));
        assert!(is_same_key(WEST, &EAST.replace("ab34cd", "AB34cd")));
        assert!(!is_same_key("local:dev", "local:DEV") && !is_same_key("alias/app", "alias/APP"));
        assert!(!is_same_key(single, &single.replace("us-west-2", "us-east-1")));
    }
}
