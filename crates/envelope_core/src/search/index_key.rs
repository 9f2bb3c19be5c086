//! An index key, and the tokens that it makes.

use std::cell::{OnceCell, RefCell};

use hmac::digest::FixedOutputReset;
use hmac::{HmacReset, KeyInit, Mac};
use sha2::Sha256;

use super::{Bucketed, SearchError, Searchable, ValueKind};
use crate::context::EncryptionContext;
use crate::keys::hkdf::hkdf_sha256;
use crate::keys::stack::{HKDF_BYTES, with_wiped_stack};
use crate::keys::{Dek, KeyBytes};

/// The pair of an encryption context that makes a data key an index key.
pub const PURPOSE: (&str, &str) = ("purpose", "envelope_pg index key");
/// Bytes of a token of equality, and of one of a bucket.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of a token of a prefix.
const PREFIX_TOKEN_BYTES: usize = 4;
const LABEL: &[u8] = b"envelope_pg index v1\0";

/// What a sub-key makes tokens of.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Equality = 1,
    Prefix = 2,
    Bucket = 3,
}

/// A version of an index key. Its sub-keys are derived when they are first used, and wiped with it. Has no Debug.
pub struct IndexKey {
    name: String,
    version: u32,
    dek: Dek,
    sub_keys: [OnceCell<Box<SubKey>>; 3],
}

/// A sub-key, in the form that HMAC wants. Wiped when dropped; has no Debug. Aligned as [`KeyBytes`], so that in a box it has memory for
/// keys, and all that a token needs of the key stays there. RustCrypto's has 184 bytes; to copy and wipe the 1,232 of aws-lc's for each
/// token took as long as to hash.
#[repr(align(64))]
struct SubKey(RefCell<HmacReset<Sha256>>);

// Larger blocks are not of the memory for keys.
const _: () = assert!(size_of::<SubKey>() <= 2048);

/// Bits of a short token of equality.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenBits(u8);

impl TokenBits {
    /// 1 to 32 bits.
    ///
    /// # Errors
    /// [`SearchError::Bits`].
    pub fn new(bits: i64) -> Result<Self, SearchError> {
        u8::try_from(bits).ok().filter(|bits| (1..=32).contains(bits)).map(Self).ok_or(SearchError::Bits(bits))
    }
}

/// The lengths of prefixes that have tokens, in characters, ascending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrefixLengths(Box<[u8]>);

impl PrefixLengths {
    /// Ascending lengths of 3 to 8 characters.
    ///
    /// # Errors
    /// [`SearchError::PrefixLengths`].
    pub fn new(lengths: &[i64]) -> Result<Self, SearchError> {
        let valid = !lengths.is_empty() && lengths.is_sorted_by(|one, next| one < next);
        let bytes = lengths.iter().map(|length| u8::try_from(*length).ok().filter(|length| (3..=8).contains(length)));
        bytes.collect::<Option<_>>().filter(|_| valid).map(Self).ok_or(SearchError::PrefixLengths)
    }

    /// The prefixes of a text that have tokens.
    fn prefixes<'a>(&self, text: &'a str) -> impl Iterator<Item = (u8, &'a str)> {
        self.0.iter().filter_map(move |length| Some((*length, prefix(text, *length)?)))
    }
}

impl IndexKey {
    /// The index key that a data key is, if its encryption context says so.
    #[must_use]
    pub fn of(dek: &Dek, context: &EncryptionContext) -> Option<Self> {
        let value = |wanted| context.pairs().find_map(|(key, value)| (key == wanted).then_some(value));
        (value(PURPOSE.0)? == PURPOSE.1).then_some(())?;
        let name = value("name")?.to_owned();
        u16::try_from(name.len()).ok()?;
        let version = value("version")?.parse().ok()?;
        Some(Self { name, version, dek: dek.copy(), sub_keys: [const { OnceCell::new() }; 3] })
    }

    /// The name of the index, as KMS has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, as KMS has it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The token of a value: `u8(version mod 256) || HMAC-SHA-256(sub-key 1, u8(type) || value)[0:15]`.
    #[must_use]
    pub fn equality_token(&self, value: &Searchable<'_>) -> [u8; TOKEN_BYTES] {
        self.with_version(self.mac(Kind::Equality, [value.kind as u8], value.as_bytes()))
    }

    /// The first bits of a token of equality, behind its version, and zero bits up to a whole byte.
    #[must_use]
    pub fn short_token(&self, value: &Searchable<'_>, bits: TokenBits) -> Vec<u8> {
        let mut token = self.equality_token(value)[..=usize::from(bits.0).div_ceil(8)].to_vec();
        let spare = (8 - bits.0 % 8) % 8;
        *token.last_mut().expect("a version") &= 0xff << spare;
        token
    }

    /// The tokens of the prefixes of a text, the shortest first: none of a text that is shorter than all of them.
    pub fn prefix_tokens(&self, text: &str, lengths: &PrefixLengths) -> impl Iterator<Item = [u8; PREFIX_TOKEN_BYTES]> {
        lengths.prefixes(text).map(|(length, prefix)| self.prefix_token(length, prefix))
    }

    /// The token of the longest indexed prefix of what is searched for.
    ///
    /// # Errors
    /// [`SearchError::NeedleTooShort`]: it would be found in every row.
    pub fn needle_token(&self, needle: &str, lengths: &PrefixLengths) -> Result<[u8; PREFIX_TOKEN_BYTES], SearchError> {
        let longest = lengths.prefixes(needle).last().ok_or(SearchError::NeedleTooShort(lengths.0[0]))?;
        Ok(self.prefix_token(longest.0, longest.1))
    }

    /// The token of a bucket: `u8(version mod 256) || HMAC-SHA-256(sub-key 3, u8(type) || i64 number)[0:15]`.
    #[must_use]
    pub fn bucket_token(&self, bucket: Bucketed) -> [u8; TOKEN_BYTES] {
        self.with_version(self.mac(Kind::Bucket, [bucket.kind as u8], &bucket.number.to_be_bytes()))
    }

    /// `HMAC-SHA-256(sub-key 2, u8(text) || u8(length) || prefix)[0:4]`.
    fn prefix_token(&self, length: u8, prefix: &str) -> [u8; PREFIX_TOKEN_BYTES] {
        let mac = self.mac(Kind::Prefix, [ValueKind::Text as u8, length], prefix.as_bytes());
        *mac.first_chunk().expect("32 bytes")
    }

    fn mac<const N: usize>(&self, kind: Kind, first: [u8; N], value: &[u8]) -> [u8; 32] {
        let mut hmac = self.sub_key(kind).borrow_mut();
        let mut mac = [0; 32];
        hmac.update(&first);
        hmac.update(value);
        hmac.finalize_into_reset((&mut mac).into());
        mac
    }

    fn with_version(&self, mac: [u8; 32]) -> [u8; TOKEN_BYTES] {
        let mut token = [self.version as u8; TOKEN_BYTES];
        token[1..].copy_from_slice(&mac[..TOKEN_BYTES - 1]);
        token
    }

    fn sub_key(&self, kind: Kind) -> &RefCell<HmacReset<Sha256>> {
        &self.sub_keys[kind as usize - 1].get_or_init(|| self.derive(kind)).0
    }

    /// `HKDF-SHA-256(index key, salt = "", info = LABEL || kind || u16 length || name || u32 version)`.
    fn derive(&self, kind: Kind) -> Box<SubKey> {
        let name_bytes = (self.name.len() as u16).to_be_bytes();
        let version = self.version.to_be_bytes();
        let info = [LABEL, &[kind as u8], &name_bytes, self.name.as_bytes(), &version];
        let mut sub_key = KeyBytes::zero();
        hkdf_sha256(b"", self.dek.as_bytes(), [(&info, &mut **sub_key)]);
        with_wiped_stack::<HKDF_BYTES, _>(|| {
            Box::new(SubKey(RefCell::new(HmacReset::new_from_slice(&**sub_key).expect("a key of any length"))))
        })
    }
}

/// The first characters of a text, if it has so many.
fn prefix(text: &str, length: u8) -> Option<&str> {
    let (last, char) = text.char_indices().nth(usize::from(length) - 1)?;
    Some(&text[..last + char.len_utf8()])
}
