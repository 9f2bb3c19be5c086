//! Whole values: the format and the suite together.

use std::ops::Range;
use std::rc::Rc;

use zeroize::Zeroize;

use crate::cipher::message_keys::MessageKeys;
use crate::cipher::suite::SealingKey;
use crate::context::EncryptionContext;
use crate::error::ValueError;
use crate::format::{Envelope, Flags, Head, NONCE_BYTES, Preamble, TAG_BYTES, ValueType};
use crate::keys::{Commitment, Dek, Provider, WrappedKey};
use crate::search::IndexKey;

/// Associated data of up to so many bytes is put together without an allocation.
const SHORT_ASSOCIATED_DATA_BYTES: usize = 256;
/// The wrapped data key: mostly it is the one within the preamble, and a session has many data keys.
enum WrappedDek {
    InPreamble(Range<usize>),
    Another(Box<[u8]>),
}

/// The key schedules: of XAES, and of AES-GCM for a batch; and what the allocator adds to all parts of a data key.
const HEAP_BYTES: usize = 1_000;

/// What is derived of a data key, which is dropped: what seals and opens its values, and the index key that it is, if its encryption
/// context says so. Has no Debug.
pub struct DerivedKeys {
    sealing_key: SealingKey,
    index_key: Option<Box<IndexKey>>,
}

impl DerivedKeys {
    /// `message_keys` are those of the session.
    #[must_use]
    pub fn of(dek: Dek, context: &EncryptionContext, message_keys: &Rc<MessageKeys>) -> Self {
        let index_key = IndexKey::of(&dek, context).map(Box::new);
        Self { sealing_key: SealingKey::derive(dek, message_keys), index_key }
    }

    /// What values under the data key commit to.
    #[must_use]
    pub fn commitment(&self) -> &Commitment {
        self.sealing_key.commitment()
    }
}

/// A data key ready for use: what seals and opens its values, and what they begin with. Has no Debug.
pub struct DataKey {
    sealing_key: SealingKey,
    preamble: Preamble,
    provider: Provider,
    key_id: Box<str>,
    wrapped_dek: WrappedDek,
    context: EncryptionContext,
    index_key: Option<Box<IndexKey>>,
}

impl DataKey {
    /// Takes a data key that a provider made. `None` if its wrapped form does not fit into a value. `message_keys` are those
    /// of the session.
    #[must_use]
    pub fn generated(
        dek: Dek,
        wrapped: WrappedKey,
        context: &EncryptionContext,
        message_keys: &Rc<MessageKeys>,
    ) -> Option<Self> {
        let derived = DerivedKeys::of(dek, context, message_keys);
        let preamble = Preamble::new(derived.commitment(), context, std::slice::from_ref(&wrapped))?;
        Some(Self::assemble(derived, preamble, wrapped, context.clone()))
    }

    /// Takes a data key that a provider unwrapped for a value, from the one of its wrapped keys that the provider opened. `context` is
    /// the value's.
    ///
    /// # Errors
    /// [`ValueError::AuthenticationFailed`] if the value does not commit to this data key.
    pub fn unwrapped(
        derived: DerivedKeys,
        wrapped: WrappedKey,
        context: EncryptionContext,
        head: &Head<'_>,
    ) -> Result<Self, ValueError> {
        if *derived.commitment() != head.commitment() {
            return Err(ValueError::AuthenticationFailed);
        }
        Ok(Self::assemble(derived, Preamble::of(head), wrapped, context))
    }

    fn assemble(derived: DerivedKeys, preamble: Preamble, wrapped: WrappedKey, context: EncryptionContext) -> Self {
        let DerivedKeys { sealing_key, index_key } = derived;
        let WrappedKey { provider, key_id, wrapped_dek } = wrapped;
        let wrapped_dek = match find(preamble.dek_identity(), &wrapped_dek) {
            Some(start) => WrappedDek::InPreamble(start..start + wrapped_dek.len()),
            None => WrappedDek::Another(wrapped_dek.into()),
        };
        Self { sealing_key, preamble, provider, key_id: key_id.into(), wrapped_dek, context, index_key }
    }

    /// The identity of the data key, as it stands in its values.
    #[must_use]
    pub fn identity(&self) -> &[u8] {
        self.preamble.dek_identity()
    }

    /// Its commitment, which is its public id.
    #[must_use]
    pub fn commitment(&self) -> &Commitment {
        self.sealing_key.commitment()
    }

    /// The key that wraps it: a key ARN, or `local:name`, as the provider gave it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The encryption context that belongs to it.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The index key that it is, if its encryption context says so.
    #[must_use]
    pub fn index_key(&self) -> Option<&IndexKey> {
        self.index_key.as_deref()
    }

    /// Its wrapped form.
    #[must_use]
    pub fn wrapped(&self) -> WrappedKey {
        let wrapped_dek = match &self.wrapped_dek {
            WrappedDek::InPreamble(range) => self.identity()[range.clone()].to_vec(),
            WrappedDek::Another(wrapped_dek) => wrapped_dek.to_vec(),
        };
        WrappedKey { provider: self.provider, key_id: self.key_id.to_string(), wrapped_dek }
    }

    /// About the memory that it takes besides its own size, once it has sealed a value.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let names = self.identity().len() + self.key_id.len() + self.context.as_bytes().len();
        names + HEAP_BYTES + self.index_key.as_ref().map_or(0, |index_key| size_of_val(&**index_key))
    }

    /// Bytes of the value of a plaintext of `plaintext_bytes` bytes.
    #[must_use]
    pub fn value_bytes(&self, plaintext_bytes: usize) -> usize {
        self.preamble.value_bytes(plaintext_bytes)
    }

    /// Seals a plaintext into `value`. `random` was drawn for this value and serves for no other.
    ///
    /// # Panics
    /// Unless `value` has [`Self::value_bytes`] of the plaintext.
    pub fn seal(
        &self,
        value_type: ValueType,
        random: &[u8; NONCE_BYTES],
        aad: Option<&[u8]>,
        plaintext: &[u8],
        value: &mut [u8],
    ) {
        self.seal_as(value_type, Flags { aad: aad.is_some(), padded: false }, random, aad, Some(plaintext), value);
    }

    /// Without a plaintext it seals in place: the plaintext stands where the ciphertext will.
    fn seal_as(
        &self,
        value_type: ValueType,
        flags: Flags,
        random: &[u8; NONCE_BYTES],
        aad: Option<&[u8]>,
        plaintext: Option<&[u8]>,
        value: &mut [u8],
    ) {
        self.sealing_key.seal(random, value.len() - self.value_bytes(0), |prefix, nonce, key| {
            let parts = self.preamble.write(value_type, flags, [prefix, nonce], value);
            with_associated_data(parts.header, aad, |associated_data| match plaintext {
                Some(plaintext) => key.seal(nonce, associated_data, plaintext, parts.ciphertext, parts.tag),
                None => key.seal_in_place(nonce, associated_data, parts.ciphertext, parts.tag),
            });
        });
    }

    /// Opens a value into `plaintext`, which has `ciphertext_bytes`, and returns how many of them are plaintext.
    ///
    /// # Errors
    /// [`ValueError::AuthenticationFailed`], with `plaintext` wiped.
    pub fn open(&self, envelope: &Envelope<'_>, aad: Option<&[u8]>, plaintext: &mut [u8]) -> Result<usize, ValueError> {
        check_aad(&envelope.head, aad)?;
        let Envelope { head, ciphertext, tag } = envelope;
        with_associated_data(head.header(), aad, |associated_data| {
            self.sealing_key.open(head.nonce, associated_data, ciphertext, tag, plaintext)
        })?;
        if head.flags.padded { unpadded_bytes(plaintext) } else { Ok(plaintext.len()) }
    }

    /// Whether a value opens to exactly this plaintext. `opened` is room for it, as for [`Self::open`].
    #[must_use]
    pub fn opens_to(&self, envelope: &Envelope<'_>, aad: Option<&[u8]>, plaintext: &[u8], opened: &mut [u8]) -> bool {
        self.open(envelope, aad, opened).is_ok_and(|bytes| opened[..bytes] == *plaintext)
    }

    /// Opens a value with the data key `opener` and seals it with this one into `value`: type, flags and aad stay. The
    /// plaintext is in `value` only, and not any more when this returns. `random` is as for [`Self::seal`].
    ///
    /// # Errors
    /// [`ValueError::AuthenticationFailed`].
    ///
    /// # Panics
    /// Unless `value` has [`Self::value_bytes`] of the ciphertext.
    pub fn reseal(
        &self,
        opener: &DataKey,
        envelope: &Envelope<'_>,
        random: &[u8; NONCE_BYTES],
        aad: Option<&[u8]>,
        value: &mut [u8],
    ) -> Result<(), ValueError> {
        let start = value.len() - TAG_BYTES - envelope.ciphertext.len();
        // With its padding, if it has one.
        let plaintext = &mut value[start..][..envelope.ciphertext.len()];
        opener.open(envelope, aad, plaintext).inspect_err(|_| plaintext.zeroize())?;
        self.seal_as(envelope.head.value_type, envelope.head.flags, random, aad, None, value);
        Ok(())
    }
}

/// Checks that an aad is given exactly if the value was sealed with one: known before any key is.
///
/// # Errors
/// [`ValueError::AuthenticationFailed`], as for a wrong aad.
fn check_aad(head: &Head<'_>, aad: Option<&[u8]>) -> Result<(), ValueError> {
    if head.flags.aad == aad.is_some() { Ok(()) } else { Err(ValueError::AuthenticationFailed) }
}

/// Calls `cipher` with the header and the aad as one slice, which is what the AEAD takes.
fn with_associated_data<T>(header: &[u8], aad: Option<&[u8]>, cipher: impl FnOnce(&[u8]) -> T) -> T {
    let Some(aad) = aad else {
        return cipher(header);
    };
    let mut short = [0; SHORT_ASSOCIATED_DATA_BYTES];
    match short.get_mut(..header.len() + aad.len()) {
        Some(short) => {
            short[..header.len()].copy_from_slice(header);
            short[header.len()..].copy_from_slice(aad);
            cipher(short)
        }
        None => cipher(&[header, aad].concat()),
    }
}

/// Length without the padding 80 00* (ISO/IEC 7816-4, padding method 2).
fn unpadded_bytes(padded: &[u8]) -> Result<usize, ValueError> {
    let marker = padded.iter().rposition(|byte| *byte != 0);
    marker.filter(|marker| padded[*marker] == 0x80).ok_or(ValueError::Malformed("padding"))
}

/// Where `part` begins. Its first byte is looked for: to prepare a search for all of it takes longer than that saves in a head.
fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memchr_iter(*part.first()?, bytes).find(|at| bytes[*at..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_key(byte: u8) -> DataKey {
        let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:a".into(), wrapped_dek: vec![byte; 65] };
        let dek = Dek::take_from(&mut [byte; 32]).expect("32 bytes");
        DataKey::generated(dek, wrapped, &EncryptionContext::default(), &Rc::default()).expect("it fits")
    }

    /// A value with a padded plaintext, which no function writes yet.
    fn padded(key: &DataKey, padded_plaintext: &[u8]) -> Vec<u8> {
        let mut value = vec![0; key.value_bytes(padded_plaintext.len())];
        let flags = Flags { aad: true, padded: true };
        key.seal_as(ValueType::Jsonb, flags, &[1; NONCE_BYTES], Some(b"row"), Some(padded_plaintext), &mut value);
        value
    }

    #[test]
    fn resealing_keeps_type_flags_aad_and_padding() {
        let (old, new) = (data_key(1), data_key(2));
        let value = padded(&old, b"text\x80\0\0");
        let envelope = Envelope::parse(&value).expect("a value");
        let mut resealed = vec![0; new.value_bytes(envelope.ciphertext.len())];
        new.reseal(&old, &envelope, &[2; NONCE_BYTES], Some(b"row"), &mut resealed).expect("it opens");
        let resealed = Envelope::parse(&resealed).expect("a value");
        assert_eq!(resealed.head.value_type, ValueType::Jsonb);
        assert_eq!(resealed.head.flags, envelope.head.flags);
        assert_eq!(resealed.head.dek_identity(), new.identity());
        let mut plaintext = [0; 7];
        assert_eq!(new.open(&resealed, Some(b"row"), &mut plaintext), Ok(4));
        assert_eq!(plaintext, *b"text\x80\0\0");
        assert!(old.open(&resealed, Some(b"row"), &mut plaintext).is_err());
        assert!(new.open(&resealed, Some(b"another"), &mut plaintext).is_err());
        let mut opened = [0; 64];
        let opened = &mut opened[..resealed.ciphertext.len()];
        assert!(new.opens_to(&resealed, Some(b"row"), b"text", opened));
        assert!(!new.opens_to(&resealed, Some(b"row"), b"text\x80\0\0", opened));
        assert!(!new.opens_to(&resealed, Some(b"row"), b"", opened));
        assert!(!new.opens_to(&resealed, Some(b"another"), b"text", opened));
    }

    #[test]
    fn what_does_not_open_is_not_resealed() {
        let (old, new) = (data_key(1), data_key(2));
        let value = padded(&old, b"text\x80");
        let envelope = Envelope::parse(&value).expect("a value");
        let mut resealed = vec![0x55; new.value_bytes(envelope.ciphertext.len())];
        for (opener, aad) in [(&new, Some(&b"row"[..])), (&old, Some(b"another")), (&old, None)] {
            let result = new.reseal(opener, &envelope, &[2; NONCE_BYTES], aad, &mut resealed);
            assert_eq!(result, Err(ValueError::AuthenticationFailed));
            assert!(resealed.iter().all(|byte| [0, 0x55].contains(byte)));
        }
    }

    #[test]
    fn what_opens_and_is_badly_padded_is_wiped() {
        let (old, new) = (data_key(1), data_key(2));
        let value = padded(&old, b"a plaintext without a marker");
        let envelope = Envelope::parse(&value).expect("a value");
        let mut resealed = vec![0x55; new.value_bytes(envelope.ciphertext.len())];
        let result = new.reseal(&old, &envelope, &[2; NONCE_BYTES], Some(b"row"), &mut resealed);
        assert_eq!(result, Err(ValueError::Malformed("padding")));
        assert!(resealed.iter().all(|byte| [0, 0x55].contains(byte)));
    }

    #[test]
    fn a_value_is_resealed_under_the_data_key_that_it_has() {
        let key = data_key(1);
        let value = padded(&key, b"text\x80");
        let envelope = Envelope::parse(&value).expect("a value");
        let mut resealed = vec![0; value.len()];
        key.reseal(&key, &envelope, &[2; NONCE_BYTES], Some(b"row"), &mut resealed).expect("it opens");
        assert!(resealed != value);
        let resealed = Envelope::parse(&resealed).expect("a value");
        assert!(key.opens_to(&resealed, Some(b"row"), b"text", &mut vec![0; resealed.ciphertext.len()]));
    }

    #[test]
    fn associated_data_is_the_header_and_the_aad() {
        let header: Vec<u8> = (0..40).collect();
        for aad_bytes in [0, 1, 215, 216, 217, 1_000] {
            let aad = vec![0xaa; aad_bytes];
            let joined = with_associated_data(&header, Some(&aad), <[u8]>::to_vec);
            assert_eq!(joined, [&header[..], &aad].concat());
        }
        assert_eq!(with_associated_data(&header, None, <[u8]>::to_vec), header);
    }
}
