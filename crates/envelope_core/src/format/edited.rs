//! Values that SQL has edited as bytes. A bytea can be cut, joined and overwritten, and what comes of a value is lost: it opens
//! to nothing. Known by its form alone, without any key.
//!
//! A value that was sealed anew has a nonce and a tag of its own. So one that shares either with another value is that value
//! under other wrapped keys, or what an edit has left of it.

use std::sync::LazyLock;

use base64::Engine;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem::{self, Finder};

use super::{
    COMMITMENT_OFFSET, CONTEXT_LENGTH_OFFSET, Envelope, Head, HeadError, MAGIC, NONCE_BYTES, SUITE, TAG_BYTES, VERSION,
};
use crate::error::ValueError;
use crate::keys::WrappedKey;

/// What every value of this version and suite begins with.
const BEGINNING: [u8; 4] = [MAGIC[0], MAGIC[1], VERSION, SUITE];
/// No value is shorter, nor what SQL writes it as: it has lengths of its context and its wrapped keys, and a byte of those.
const MIN_VALUE_BYTES: usize = CONTEXT_LENGTH_OFFSET + 2 + 2 + 1 + NONCE_BYTES + TAG_BYTES;
/// Random bytes that no two values share by chance.
const PROBE_BYTES: usize = 16;
/// Random bytes that a plaintext does not share with one given value by chance.
const SHORT_PROBE_BYTES: usize = 8;
/// Bytes in which two wrappings of one data key differ at least: they are random.
const WRAPPINGS_DIFFER_BYTES: usize = 16;
/// Bytes from which on the cut head of a value is told from a plaintext that begins with the same four bytes: a type, flags and
/// lengths that fit.
const CUT_HEAD_BYTES: usize = CONTEXT_LENGTH_OFFSET + 4;

/// Base64 that may be cut anywhere.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// What the head of a value says, if it has the form of one to its end.
fn well_formed(bytes: &[u8]) -> Result<Head<'_>, ValueError> {
    let head = Head::parse(bytes, bytes.len()).map_err(|error| match error {
        HeadError::Invalid(error) => error,
        HeadError::NeedBytes(_) => ValueError::Truncated,
    })?;
    head.encryption_context()?;
    head.key_id()?;
    Ok(head)
}

/// Whether some bytes have the form of a value.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    bytes.starts_with(&BEGINNING) && well_formed(bytes).is_ok()
}

/// Whether a text is a value as SQL writes bytes: in hexadecimal digits, as it casts a bytea to text, in base64 or escaped.
#[must_use]
pub fn is_text_of_value(text: &[u8]) -> bool {
    let digits = text.strip_prefix(br"\x").unwrap_or(text);
    let begins = digits.len() >= 8 && digits[..8].eq_ignore_ascii_case(b"f6450101");
    (begins && is_value_in(digits, unhex))
        || (text.starts_with(b"9kUBA") && is_value_in(text, unbase64))
        || (text.starts_with(br"\366E") && is_value_in(text, unescape))
}

/// Whether JSON is a string that is a value, as `to_jsonb` makes one of a bytea.
#[must_use]
pub fn is_json_of_value(json: &[u8]) -> bool {
    json.strip_prefix(b"\"").is_some_and(|text| is_text_of_value(text.strip_prefix(br"\\x").unwrap_or(text)))
}

/// Whether there is the head of a value in some bytes, from `from` on.
#[must_use]
pub fn contains_value(bytes: &[u8], from: usize) -> bool {
    static SEARCH: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(&BEGINNING));
    let bytes = bytes.get(from..).unwrap_or_default();
    bytes.len() >= MIN_VALUE_BYTES && SEARCH.find_iter(bytes).any(|at| well_formed(&bytes[at..]).is_ok())
}

/// Whether some bytes are the first ones of a value, and the rest of it is missing.
#[must_use]
pub fn is_cut_value(bytes: &[u8]) -> bool {
    bytes.starts_with(&BEGINNING)
        && bytes.len() >= CUT_HEAD_BYTES
        && well_formed(bytes).err() == Some(ValueError::Truncated)
}

/// Whether a text has a value in it, in a form that SQL writes bytes in: hexadecimal, base64 or escaped.
#[must_use]
pub fn text_contains_value(text: &[u8]) -> bool {
    /// What a value begins with in each form, and how that is read. To make a [`Finder`] takes longer than to search a short text.
    static FORMS: LazyLock<[(Finder<'_>, Decode); 4]> = LazyLock::new(|| {
        [
            (Finder::new("f6450101"), unhex),
            (Finder::new("F6450101"), unhex),
            // The first three bytes of a value are four digits of base64; the fourth byte begins with the fifth.
            (Finder::new("9kUBA"), unbase64),
            (Finder::new(r"\366E"), unescape),
        ]
    });
    text.len() >= MIN_VALUE_BYTES
        && FORMS.iter().any(|(beginning, decode)| beginning.find_iter(text).any(|at| is_value_in(&text[at..], *decode)))
}

type Decode = fn(&[u8]) -> Vec<u8>;

/// Decodes a part of the text first: a head is short, and the text may be long.
fn is_value_in(text: &[u8], decode: Decode) -> bool {
    let mut text_bytes = 4_096;
    loop {
        let part = &text[..text.len().min(text_bytes)];
        let bytes = decode(part);
        // What is decoded of a part has no end of its own.
        match Head::parse(&bytes, if part.len() < text.len() { usize::MAX / 2 } else { bytes.len() }) {
            Ok(head) => return head.encryption_context().is_ok() && head.key_id().is_ok(),
            Err(HeadError::NeedBytes(_)) if part.len() < text.len() => text_bytes *= 8,
            Err(_) => return false,
        }
    }
}

/// Up to the first other character.
fn unhex(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(2).map_while(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?)).collect()
}

/// Up to the first other character but those that separate lines, as PostgreSQL writes them and JSON escapes them.
fn unbase64(text: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits.push(*byte),
            b'\n' | b'\r' => {}
            b'\\' if matches!(tail.first(), Some(b'n' | b'r')) => rest = &rest[1..],
            _ => break,
        }
        rest = &rest[1..];
    }
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    LENIENT.decode(digits).unwrap_or_default()
}

/// The format `escape` of a bytea: the setting `bytea_output` escapes control characters, too, and `encode` does not.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => break,
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    bytes
}

/// Whether some bytes are what an edit has left of a value. Not if they are that value, also under other wrapped keys.
#[must_use]
pub fn is_edit_of(bytes: &[u8], value: &[u8]) -> bool {
    let Ok(old) = Envelope::parse(value) else {
        return false;
    };
    match well_formed(bytes).and_then(|_| Envelope::parse(bytes)) {
        Ok(new) if new.head.nonce == old.head.nonce || new.tag == old.tag => !is_same_but_for_wrapped_keys(&new, &old),
        Ok(_) => false,
        Err(_) => has_part_of(bytes, value, &old),
    }
}

fn is_same_but_for_wrapped_keys(new: &Envelope<'_>, old: &Envelope<'_>) -> bool {
    let sealed = |envelope: &Envelope<'_>| (*envelope.head.nonce, *envelope.tag);
    new.head.header() == old.head.header()
        && sealed(new) == sealed(old)
        && new.ciphertext == old.ciphertext
        && are_whole_wrappings(&new.head, &old.head)
}

/// Whether each wrapped key is one of the other value's, or has nothing of any: to wrap again makes random bytes.
fn are_whole_wrappings(new: &Head<'_>, old: &Head<'_>) -> bool {
    let (Ok(new), Ok(old)) = (new.wrapped_keys(), old.wrapped_keys()) else {
        return false;
    };
    let is_edited = |new: &WrappedKey, old: &WrappedKey| {
        let from_behind = new.wrapped_dek.iter().rev().zip(old.wrapped_dek.iter().rev());
        from_behind.filter(|(new, old)| new != old).count() < WRAPPINGS_DIFFER_BYTES
    };
    new.iter().all(|new| old.contains(new) || !old.iter().any(|old| is_edited(new, old)))
}

/// Whether a part of a value stands in some bytes that are no value.
fn has_part_of(bytes: &[u8], value: &[u8], old: &Envelope<'_>) -> bool {
    let is_in = |part: &[u8]| memmem::find(bytes, part).is_some();
    if is_in(old.head.nonce) || is_in(old.tag) {
        return true;
    }
    if bytes.len() < SHORT_PROBE_BYTES {
        return false;
    }
    let probe_bytes = bytes.len().min(PROBE_BYTES);
    let middle = (bytes.len() - probe_bytes) / 2;
    [0, middle, bytes.len() - probe_bytes].iter().any(|at| is_part_of(&bytes[*at..][..probe_bytes], value, old))
}

/// Whether a value has these bytes, its encryption context and short parts of its wrapped keys aside: those are not random.
fn is_part_of(probe: &[u8], value: &[u8], old: &Envelope<'_>) -> bool {
    let head = &old.head;
    let wrapped_keys = &value[head.header_end..head.wrapped_keys_end];
    let is_in = |part: &[u8]| memmem::find(part, probe).is_some();
    value.starts_with(probe)
        || is_in(&value[COMMITMENT_OFFSET..CONTEXT_LENGTH_OFFSET])
        || is_in(&value[head.wrapped_keys_end..])
        || (probe.len() == PROBE_BYTES && is_in(wrapped_keys))
}

/// What is kept of a value to know an edit of it by, when the value is not at hand any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fingerprint {
    nonce: [u8; NONCE_BYTES],
    tag: [u8; super::TAG_BYTES],
    /// Of the header and the ciphertext. Against mistakes, not against an adversary: the tag is for that.
    hash: u64,
}

impl Fingerprint {
    /// That of a value.
    #[must_use]
    pub fn of(value: &Envelope<'_>) -> Self {
        use std::hash::Hasher;
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(value.head.header());
        hasher.write(value.ciphertext);
        Self { nonce: *value.head.nonce, tag: *value.tag, hash: hasher.finish() }
    }

    /// Whether some bytes are the value, also under other wrapped keys.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Envelope::parse(bytes).is_ok_and(|value| Self::of(&value) == *self)
    }

    /// Whether some bytes are what an edit has left of the value.
    #[must_use]
    pub fn is_of_edited(&self, bytes: &[u8]) -> bool {
        match well_formed(bytes).and_then(|_| Envelope::parse(bytes)) {
            Ok(new) if *new.head.nonce == self.nonce || *new.tag == self.tag => Self::of(&new) != *self,
            Ok(_) => false,
            Err(_) => {
                let is_in = |part: &[u8]| memmem::find(bytes, part).is_some();
                is_in(&self.nonce) || is_in(&self.tag)
            }
        }
    }
}

#[cfg(test)]
mod tests;
