//! Strict mode: the list of keys that may be used.

use crate::error::ArgumentError;
use crate::keys::{KeyId, is_same_key};

/// Allows no key.
const NONE: &str = "none";

/// The keys that may be used, or all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllowedKeys(Option<Vec<String>>);

impl AllowedKeys {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// No key.
    #[must_use]
    pub fn none() -> Self {
        Self(Some(Vec::new()))
    }

    /// Parses a list of key ids with commas between them. An empty list allows every key, and `none`, which is no key id, none.
    ///
    /// # Errors
    /// [`ArgumentError::AllowedKeys`] for what is not a key id.
    pub fn parse(list: &str) -> Result<Self, ArgumentError> {
        if list.trim().is_empty() {
            return Ok(Self::all());
        }
        if list.trim() == NONE {
            return Ok(Self::none());
        }
        let parse = |(index, entry): (usize, &str)| match KeyId::parse(entry.trim()) {
            Ok(key_id) => Ok(key_id.to_string()),
            Err(_) => Err(ArgumentError::AllowedKeys(index + 1)),
        };
        list.split(',').enumerate().map(parse).collect::<Result<_, _>>().map(|keys| Self(Some(keys)))
    }

    /// Whether a key may be used. A key that a statement names and the key ARN that KMS resolves it to must both be
    /// allowed, so a list that lets statements name an alias has the alias and its key's ARN. A multi-Region key in the list
    /// stands for its replicas in all regions.
    #[must_use]
    pub fn allows(&self, key_id: &str) -> bool {
        self.0.as_ref().is_none_or(|keys| keys.iter().any(|allowed| is_same_key(allowed, key_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_allows_all() {
        assert!(AllowedKeys::parse(" ").unwrap().allows("local:any"));
        assert!(!AllowedKeys::none().allows("local:any"));
        assert_eq!(AllowedKeys::parse(" none "), Ok(AllowedKeys::none()));
    }

    #[test]
    fn lists_are_exact() {
        let allowed = AllowedKeys::parse("local:a, alias/app").unwrap();
        assert!(allowed.allows("local:a"));
        assert!(allowed.allows("alias/app"));
        assert!(!allowed.allows("local:ab"));
        assert!(!allowed.allows("alias/ap"));
        assert!(!allowed.allows(""));
        const KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
        let upper = KEY.replace("715c0818", "715C0818");
        assert!(AllowedKeys::parse(&upper).unwrap().allows(KEY));
        assert!(AllowedKeys::parse(KEY).unwrap().allows(&upper));
        assert!(AllowedKeys::parse(&upper[39..]).unwrap().allows(&KEY[39..]), "a uuid alone");
    }

    #[test]
    fn a_mistake_does_not_allow_all() {
        for list in [",", "none,local:a", "local:a,", "local:a local:b", "*"] {
            assert!(matches!(AllowedKeys::parse(list), Err(ArgumentError::AllowedKeys(_))), "{list}");
        }
    }
}
