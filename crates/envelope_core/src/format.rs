//! The bytes of a value, version 1 (docs/FORMAT.md): parse and write. Knows no cipher.
//!
//! ```text
//! F6 45 | version | suite | type | flags | commitment 32 | u16 length, encryption context     the header
//! u16 length, wrapped keys | nonce 24 | ciphertext | tag 16
//! ```
//!
//! - [`edited`]: values that SQL has edited as bytes
//! - [`key_reference`]: how a value names the key that wraps its data key
//! - [`wrapped_keys`]: the wrapped keys of a value, written
//! - [`rotation`]: the same value under other wrapped keys

pub mod edited;
pub mod key_reference;
pub mod rotation;
pub mod wrapped_keys;

use crate::context::EncryptionContext;
use crate::error::ValueError;
pub use crate::keys::SUITE;
use crate::keys::{Commitment, Provider, WrappedKey};
pub use crate::value_type::ValueType;
use wrapped_keys::STANZA_FIXED_BYTES;
pub use wrapped_keys::WrappedKeys;

/// The first two bytes. F6 never occurs in UTF-8.
pub const MAGIC: [u8; 2] = [0xf6, 0x45];
/// The format version that this release writes.
pub const VERSION: u8 = 1;
/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of the authentication tag.
pub const TAG_BYTES: usize = 16;
/// Wrapped keys of a value. Each may cost a call to a key provider, and whoever can store a value chooses how many it has.
pub const MAX_WRAPPED_KEYS: usize = 8;

const MAGIC_BYTES: usize = MAGIC.len();
const VERSION_OFFSET: usize = MAGIC_BYTES;
const SUITE_OFFSET: usize = 3;
const TYPE_OFFSET: usize = 4;
const FLAGS_OFFSET: usize = 5;
const COMMITMENT_OFFSET: usize = 6;
const CONTEXT_LENGTH_OFFSET: usize = 38;

/// The flags of a value.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags {
    /// Associated data of the caller's was authenticated.
    pub aad: bool,
    /// The plaintext is padded with 80 00* (ISO/IEC 7816-4).
    pub padded: bool,
}

impl Flags {
    const AAD: u8 = 1;
    const REF: u8 = 2;
    const PAD: u8 = 4;

    fn from_byte(byte: u8) -> Result<Self, ValueError> {
        if byte & !(Self::AAD | Self::REF | Self::PAD) != 0 {
            return Err(ValueError::Malformed("flags"));
        }
        if byte & Self::REF != 0 {
            return Err(ValueError::UnsupportedReference);
        }
        Ok(Self { aad: byte & Self::AAD != 0, padded: byte & Self::PAD != 0 })
    }

    fn to_byte(self) -> u8 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.aad, Self::AAD) | bit(self.padded, Self::PAD)
    }
}

/// Why the first bytes of a value could not be parsed.
#[derive(Debug, Eq, PartialEq)]
pub enum HeadError {
    /// So many bytes of the value are needed to go on.
    NeedBytes(usize),
    /// They are not a value.
    Invalid(ValueError),
}

impl From<ValueError> for HeadError {
    fn from(error: ValueError) -> Self {
        Self::Invalid(error)
    }
}

/// Everything of a value in front of its ciphertext, in place.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The type of the plaintext.
    pub value_type: ValueType,
    /// The flags.
    pub flags: Flags,
    /// The nonce.
    pub nonce: &'a [u8; NONCE_BYTES],
    /// Bytes of the ciphertext, which are those of the plaintext with its padding.
    pub ciphertext_bytes: usize,
    bytes: &'a [u8],
    header_end: usize,
    wrapped_keys_end: usize,
}

impl<'a> Head<'a> {
    /// Parses the head of a value of `value_bytes` bytes from a prefix of it.
    ///
    /// # Errors
    /// [`HeadError::NeedBytes`] if the prefix is too short and the value is not; else what is wrong with the value.
    pub fn parse(prefix: &'a [u8], value_bytes: usize) -> Result<Self, HeadError> {
        let Some((value_type, flags)) = fixed_fields(prefix)? else {
            return Err(match value_bytes {
                ..MAGIC_BYTES => ValueError::NotAnEnvelope.into(),
                MAGIC_BYTES..CONTEXT_LENGTH_OFFSET => ValueError::Truncated.into(),
                _ => HeadError::NeedBytes(CONTEXT_LENGTH_OFFSET),
            });
        };
        let mut cursor = Cursor { prefix, value_bytes, offset: CONTEXT_LENGTH_OFFSET };
        cursor.take_prefixed()?;
        let header_end = cursor.offset;
        if cursor.take_prefixed()?.is_empty() {
            return Err(ValueError::Malformed("wrapped keys").into());
        }
        let wrapped_keys_end = cursor.offset;
        let nonce = cursor.take(NONCE_BYTES)?.first_chunk().expect("as many bytes as were taken");
        let ciphertext_bytes = (value_bytes - cursor.offset).checked_sub(TAG_BYTES).ok_or(ValueError::Truncated)?;
        Ok(Self { value_type, flags, nonce, ciphertext_bytes, bytes: prefix, header_end, wrapped_keys_end })
    }

    /// The header: the first part of the AEAD's associated data.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        &self.bytes[..self.header_end]
    }

    /// Bytes of the whole value.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.wrapped_keys_end + NONCE_BYTES + self.ciphertext_bytes + TAG_BYTES
    }

    /// The commitment to the data key, which also names it.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        let bytes = self.bytes[COMMITMENT_OFFSET..].first_chunk();
        Commitment(*bytes.expect("parse() went past the commitment"))
    }

    /// The head itself: with [`Self::value_bytes`] it can be parsed again.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.wrapped_keys_end + NONCE_BYTES]
    }

    /// The identity of the data key: commitment, encryption context and wrapped keys, as they stand in the value. Two
    /// values with the same identity have the same key and context, and whoever may unwrap the one may unwrap the other.
    #[must_use]
    pub fn dek_identity(&self) -> &'a [u8] {
        &self.bytes[COMMITMENT_OFFSET..self.wrapped_keys_end]
    }

    /// The encryption context.
    ///
    /// # Errors
    /// [`ValueError::Malformed`] if it is not in its canonical encoding.
    pub fn encryption_context(&self) -> Result<EncryptionContext, ValueError> {
        EncryptionContext::parse(&self.bytes[CONTEXT_LENGTH_OFFSET + 2..self.header_end])
    }

    /// The wrapped keys of known providers, in order: one at least.
    ///
    /// # Errors
    /// [`ValueError::Malformed`] if they are not as written, [`ValueError::UnsupportedProvider`] if none is known.
    pub fn wrapped_keys(&self) -> Result<Vec<WrappedKey>, ValueError> {
        let mut wrapped_keys = Vec::with_capacity(1);
        self.visit_wrapped_keys(|provider, key_id, wrapped_dek| {
            wrapped_keys.push(WrappedKey { provider, key_id, wrapped_dek: wrapped_dek.to_vec() });
        })?;
        Ok(wrapped_keys)
    }

    /// The key id of the first wrapped key of a known provider.
    ///
    /// # Errors
    /// As [`Self::wrapped_keys`], about any of them.
    pub fn key_id(&self) -> Result<String, ValueError> {
        let mut first = None;
        self.visit_wrapped_keys(|_, key_id, _| first = first.take().or(Some(key_id)))?;
        Ok(first.expect("there is one at least"))
    }

    /// Calls `visit` with provider, key id and wrapped data key of each known provider, once at least.
    fn visit_wrapped_keys(&self, mut visit: impl FnMut(Provider, String, &[u8])) -> Result<(), ValueError> {
        const MALFORMED: ValueError = ValueError::Malformed("wrapped keys");
        let mut rest = &self.bytes[self.header_end + 2..self.wrapped_keys_end];
        let first_provider = rest[0];
        let (mut is_known, mut count) = (false, 0);
        while !rest.is_empty() {
            count += 1;
            if count > MAX_WRAPPED_KEYS {
                return Err(MALFORMED);
            }
            let ([provider, length @ ..], tail) = rest.split_first_chunk::<STANZA_FIXED_BYTES>().ok_or(MALFORMED)?;
            let (stanza, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(MALFORMED)?;
            let (reference_bytes, stanza) = stanza.split_first().ok_or(MALFORMED)?;
            let (reference, wrapped_dek) = stanza.split_at_checked((*reference_bytes).into()).ok_or(MALFORMED)?;
            // What an unknown provider keeps here is not ours to judge.
            if let Some(provider) = Provider::from_byte(*provider) {
                if wrapped_dek.is_empty() {
                    return Err(MALFORMED);
                }
                visit(provider, key_reference::parse(provider, reference)?, wrapped_dek);
                is_known = true;
            }
            rest = tail;
        }
        if is_known { Ok(()) } else { Err(ValueError::UnsupportedProvider(first_provider)) }
    }
}

/// A whole value, in place.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Everything in front of the ciphertext.
    pub head: Head<'a>,
    /// The ciphertext.
    pub ciphertext: &'a [u8],
    /// The authentication tag.
    pub tag: &'a [u8; TAG_BYTES],
}

impl<'a> Envelope<'a> {
    /// Finds the parts of a value. The context and the wrapped keys are parsed when they are asked for: a value under a
    /// cached data key has the same ones, byte for byte, as the value that the key was fetched for.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let head = Head::parse(value, value.len()).map_err(|error| match error {
            HeadError::Invalid(error) => error,
            HeadError::NeedBytes(_) => ValueError::Truncated,
        })?;
        let (rest, tag) = value.split_last_chunk().ok_or(ValueError::Truncated)?;
        Ok(Self { head, ciphertext: &rest[head.wrapped_keys_end + NONCE_BYTES..], tag })
    }
}

/// The fields of fixed length, up to the commitment: `None` if not all of them are there, and those that are could be a value's.
#[inline]
fn fixed_fields(prefix: &[u8]) -> Result<Option<(ValueType, Flags)>, ValueError> {
    let Some(fields) = prefix.first_chunk::<CONTEXT_LENGTH_OFFSET>() else {
        return short_fields(prefix);
    };
    if fields[..MAGIC_BYTES] != MAGIC {
        return Err(ValueError::NotAnEnvelope);
    }
    if fields[VERSION_OFFSET] != VERSION {
        return Err(ValueError::UnsupportedVersion(fields[VERSION_OFFSET]));
    }
    if fields[SUITE_OFFSET] != SUITE {
        return Err(ValueError::UnsupportedSuite(fields[SUITE_OFFSET]));
    }
    let value_type = ValueType::from_byte(fields[TYPE_OFFSET]).ok_or(ValueError::Malformed("type"))?;
    Ok(Some((value_type, Flags::from_byte(fields[FLAGS_OFFSET])?)))
}

/// What is wrong with fields that are not all there: the rest is taken to be right.
#[cold]
fn short_fields(prefix: &[u8]) -> Result<Option<(ValueType, Flags)>, ValueError> {
    let mut fields = [0; CONTEXT_LENGTH_OFFSET];
    fields[..COMMITMENT_OFFSET].copy_from_slice(&[MAGIC[0], MAGIC[1], VERSION, SUITE, ValueType::Text as u8, 0]);
    fields[..prefix.len()].copy_from_slice(prefix);
    fixed_fields(&fields).map(|_| None)
}

/// The fields of a value, one after the other, from a prefix of it.
struct Cursor<'a> {
    prefix: &'a [u8],
    value_bytes: usize,
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], HeadError> {
        let end = self.offset + bytes;
        if end > self.value_bytes {
            return Err(ValueError::Truncated.into());
        }
        let field = self.prefix.get(self.offset..end).ok_or(HeadError::NeedBytes(end))?;
        self.offset = end;
        Ok(field)
    }

    fn take_prefixed(&mut self) -> Result<&'a [u8], HeadError> {
        let length = self.take(2)?;
        self.take(u16::from_be_bytes([length[0], length[1]]).into())
    }
}

/// What all values under one data key and encryption context begin with, ready to be copied in front of each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preamble {
    bytes: Box<[u8]>,
    header_end: usize,
}

impl Preamble {
    /// Writes the preamble of a data key. `None` if a wrapped key is larger than its length field can say.
    #[must_use]
    pub fn new(commitment: &Commitment, context: &EncryptionContext, wrapped_keys: &[WrappedKey]) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend([VERSION, SUITE, 0, 0]);
        bytes.extend(commitment.0);
        bytes.extend(u16::try_from(context.as_bytes().len()).ok()?.to_be_bytes());
        bytes.extend(context.as_bytes());
        let header_end = bytes.len();
        bytes.extend(WrappedKeys::write(wrapped_keys)?.as_bytes());
        Some(Self { bytes: bytes.into(), header_end })
    }

    /// Copies the preamble of a value.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        Self { bytes: head.bytes[..head.wrapped_keys_end].into(), header_end: head.header_end }
    }

    /// Whether a value of `value_bytes` bytes begins with it, and is long enough. Its head then says the same, nonce apart, so that it need
    /// not be parsed.
    #[must_use]
    #[inline]
    pub fn begins(&self, prefix: &[u8], value_bytes: usize) -> bool {
        value_bytes >= self.value_bytes(0) && prefix.starts_with(&self.bytes)
    }

    /// Bytes of a value with a plaintext of `plaintext_bytes` bytes.
    #[must_use]
    pub fn value_bytes(&self, plaintext_bytes: usize) -> usize {
        plaintext_bytes.saturating_add(self.bytes.len() + NONCE_BYTES + TAG_BYTES)
    }

    /// The identity of the data key, as [`Head::dek_identity`] gives it for its values.
    #[must_use]
    pub fn dek_identity(&self) -> &[u8] {
        &self.bytes[COMMITMENT_OFFSET..]
    }

    /// Writes all of a value but its ciphertext and tag, and returns its parts.
    ///
    /// # Panics
    /// Unless `value` has [`Self::value_bytes`] of its plaintext.
    pub fn write<'a>(
        &self,
        value_type: ValueType,
        flags: Flags,
        nonce: [&[u8; NONCE_BYTES / 2]; 2],
        value: &'a mut [u8],
    ) -> ValueParts<'a> {
        let (preamble, rest) = value.split_at_mut(self.bytes.len());
        preamble.copy_from_slice(&self.bytes);
        preamble[TYPE_OFFSET] = value_type as u8;
        preamble[FLAGS_OFFSET] = flags.to_byte();
        let (nonce_field, rest) = rest.split_at_mut(NONCE_BYTES);
        nonce_field.chunks_exact_mut(NONCE_BYTES / 2).zip(nonce).for_each(|(field, half)| field.copy_from_slice(half));
        let (ciphertext, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        ValueParts { header: &preamble[..self.header_end], ciphertext, tag }
    }
}

/// A value that is being written.
pub struct ValueParts<'a> {
    /// The header, written.
    pub header: &'a [u8],
    /// To be written.
    pub ciphertext: &'a mut [u8],
    /// To be written: 16 bytes.
    pub tag: &'a mut [u8],
}
