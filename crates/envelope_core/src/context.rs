//! The KMS encryption context: flat pairs of strings in one canonical encoding.
//!
//! Encoding (docs/FORMAT.md): nothing at all for no pairs; else `u16 count`, then the pairs sorted by the bytes of their
//! keys, each `u16 length, key, u16 length, value`, in UTF-8.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{ArgumentError, ValueError};

/// The pair that every call to a key provider carries besides the caller's own: key.
pub const RESERVED_KEY: &str = "envelope_pg";
/// The pair that every call to a key provider carries besides the caller's own: value.
pub const RESERVED_VALUE: &str = "v1";

/// JSON writes a byte as `\u0000` at most; quotes, colons, commas and blanks are fewer. What is longer is not parsed: a parsed
/// document takes a multiple of its text's memory.
const MAX_JSON_BYTES: usize = 8 * 65_535;
const TOO_LARGE: ArgumentError = ArgumentError::EncryptionContext("it is too large (65535 bytes at most)");

/// An encryption context in its canonical encoding, at most 65,535 bytes.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct EncryptionContext(Vec<u8>);

impl EncryptionContext {
    /// Parses a JSON object of strings, such as `{"table": "patients"}`.
    ///
    /// # Errors
    /// [`ArgumentError::EncryptionContext`] for anything but a flat object of strings, for the reserved key
    /// `envelope_pg`, and above the size limits.
    pub fn from_json(json: &str) -> Result<Self, ArgumentError> {
        if json.len() > MAX_JSON_BYTES {
            return Err(TOO_LARGE);
        }
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|_| ArgumentError::EncryptionContext("not valid JSON"))?;
        let serde_json::Value::Object(object) = value else {
            return Err(ArgumentError::EncryptionContext("it must be a JSON object"));
        };
        let pairs = object
            .into_iter()
            .map(|(key, value)| match value {
                serde_json::Value::String(text) => Ok((key, text)),
                _ => Err(ArgumentError::EncryptionContext("every value must be a string")),
            })
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        Self::from_pairs(&pairs)
    }

    /// Encodes pairs; the map has them sorted by the bytes of their keys.
    ///
    /// # Errors
    /// [`ArgumentError::EncryptionContext`] for the reserved key `envelope_pg` and above the size limits.
    pub fn from_pairs(pairs: &BTreeMap<String, String>) -> Result<Self, ArgumentError> {
        if pairs.is_empty() {
            return Ok(Self::default());
        }
        if pairs.contains_key(RESERVED_KEY) {
            return Err(ArgumentError::EncryptionContext("the key \"envelope_pg\" is reserved"));
        }
        let encoded = encode(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        encoded.filter(|encoded| encoded.len() <= usize::from(u16::MAX)).map(Self).ok_or(TOO_LARGE)
    }

    /// Takes the encoding found in a value.
    ///
    /// # Errors
    /// [`ValueError::Malformed`] unless it is the canonical one.
    pub fn parse(encoded: &[u8]) -> Result<Self, ValueError> {
        validate(encoded)?;
        Ok(Self(encoded.to_vec()))
    }

    /// Whether the caller gave no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The canonical encoding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The caller's pairs, sorted by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0)
    }

    /// The caller's pairs as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let object = self.pairs().map(|(key, value)| (key.to_owned(), value.into())).collect();
        serde_json::Value::Object(object).to_string()
    }

    /// What a key provider is given: the caller's pairs and `envelope_pg = v1`.
    #[must_use]
    pub fn for_kms(&self) -> HashMap<String, String> {
        self.pairs()
            .chain([(RESERVED_KEY, RESERVED_VALUE)])
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// What a key provider is given, in the canonical encoding: the local provider's associated data.
    #[must_use]
    pub fn for_kms_encoded(&self) -> Vec<u8> {
        let sorted: BTreeMap<_, _> = self.pairs().chain([(RESERVED_KEY, RESERVED_VALUE)]).collect();
        encode(sorted.into_iter()).expect("parts of a context of 65,535 bytes at most")
    }
}

impl TryFrom<Vec<u8>> for EncryptionContext {
    type Error = ValueError;

    fn try_from(encoded: Vec<u8>) -> Result<Self, ValueError> {
        validate(&encoded)?;
        Ok(Self(encoded))
    }
}

impl From<EncryptionContext> for Vec<u8> {
    fn from(context: EncryptionContext) -> Self {
        context.0
    }
}

/// The encoding of sorted pairs. `None` if a length does not fit its field.
fn encode<'a>(sorted: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Option<Vec<u8>> {
    let mut encoded = u16::try_from(sorted.len()).ok()?.to_be_bytes().to_vec();
    for text in sorted.flat_map(|(key, value)| [key, value]) {
        encoded.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
        encoded.extend(text.as_bytes());
    }
    Some(encoded)
}

/// The pairs of a canonical encoding; nothing for one that is not.
fn pairs(encoded: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = encoded.get(2..).unwrap_or_default();
    std::iter::from_fn(move || Some((take_text(&mut rest)?, take_text(&mut rest)?)))
}

/// Checks that an encoding is the canonical one.
fn validate(encoded: &[u8]) -> Result<(), ValueError> {
    const MALFORMED: ValueError = ValueError::Malformed("encryption context");
    if encoded.is_empty() {
        return Ok(());
    }
    if encoded.len() > usize::from(u16::MAX) {
        return Err(MALFORMED);
    }
    let (count, mut rest) = encoded.split_first_chunk().ok_or(MALFORMED)?;
    let count = u16::from_be_bytes(*count);
    if count == 0 {
        return Err(MALFORMED);
    }
    let mut previous: Option<&str> = None;
    for _ in 0..count {
        let key = take_text(&mut rest).ok_or(MALFORMED)?;
        take_text(&mut rest).ok_or(MALFORMED)?;
        if key == RESERVED_KEY || previous.is_some_and(|previous| previous >= key) {
            return Err(MALFORMED);
        }
        previous = Some(key);
    }
    if rest.is_empty() { Ok(()) } else { Err(MALFORMED) }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, tail) = rest.split_first_chunk()?;
    let (text, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_whatever_the_order() {
        let one = EncryptionContext::from_json(r#"{"b": "2", "a": "1", "é": "ü"}"#).unwrap();
        let two = EncryptionContext::from_json(r#"{"é": "ü", "a": "1", "b": "2"}"#).unwrap();
        assert_eq!(one, two);
        assert_eq!(one.pairs().collect::<Vec<_>>(), [("a", "1"), ("b", "2"), ("é", "ü")]);
        assert_eq!(EncryptionContext::parse(one.as_bytes()), Ok(one));
    }

    #[test]
    fn empty_object_is_no_context() {
        assert_eq!(EncryptionContext::from_json("{}").unwrap().as_bytes(), b"");
    }

    #[test]
    fn kms_always_gets_the_reserved_pair() {
        let context = EncryptionContext::from_json(r#"{"z": "1"}"#).unwrap();
        assert_eq!(context.for_kms()["envelope_pg"], "v1");
        assert_eq!(context.for_kms()["z"], "1");
        assert_eq!(context.for_kms_encoded(), b"\x00\x02\x00\x0benvelope_pg\x00\x02v1\x00\x01z\x00\x011");
    }

    #[test]
    fn refuses_what_is_not_flat() {
        let too_long = format!(r#"{{"a": "{}"}}"#, "x".repeat(65_536));
        let too_large = format!(r#"{{"a": "{0}", "b": "{0}"}}"#, "x".repeat(40_000));
        for json in
            ["null", "[]", "\"a\"", r#"{"a": 1}"#, r#"{"a": null}"#, r#"{"a": {"b": "c"}}"#, r#"{"envelope_pg": "v1"}"#]
                .into_iter()
                .chain([too_long.as_str(), too_large.as_str()])
        {
            let error = EncryptionContext::from_json(json).unwrap_err();
            assert!(matches!(error, ArgumentError::EncryptionContext(_)), "{json:.40}");
        }
    }

    #[test]
    fn refuses_other_encodings() {
        for encoded in [
            &b"\x00"[..],
            b"\x00\x00",
            b"\x00\x01",
            b"\x00\x01\x00\x01a",
            b"\x00\x01\x00\x01a\x00\x00\x00",
            b"\x00\x01\x00\x01\xff\x00\x00",
            b"\x00\x02\x00\x01b\x00\x00\x00\x01a\x00\x00",
            b"\x00\x02\x00\x01a\x00\x00\x00\x01a\x00\x00",
            b"\x00\x01\x00\x0benvelope_pg\x00\x02v1",
        ] {
            assert_eq!(validate(encoded), Err(ValueError::Malformed("encryption context")), "{encoded:02x?}");
        }
    }
}
