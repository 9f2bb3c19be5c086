//! What rotation makes of a value without any key: the same value under other wrapped keys, and a stub for its data key.
//!
//! The wrapped keys are outside of the associated data, so that they can be replaced and the value still opens: its header
//! commits to the data key.

use super::{COMMITMENT_OFFSET, Envelope, FLAGS_OFFSET, Head, NONCE_BYTES, Preamble, TAG_BYTES, TYPE_OFFSET};
use crate::error::ValueError;
use crate::format::WrappedKeys;

impl WrappedKeys {
    /// Those of a value or stub, checked.
    ///
    /// # Errors
    /// As [`Head::wrapped_keys`].
    pub fn of(head: &Head<'_>) -> Result<Self, ValueError> {
        head.wrapped_keys()?;
        Ok(Self(head.bytes[head.header_end..head.wrapped_keys_end].into()))
    }
}

impl Envelope<'_> {
    /// Bytes of this value under other wrapped keys.
    #[must_use]
    pub fn rewrapped_bytes(&self, wrapped_keys: &WrappedKeys) -> usize {
        self.head.header_end + wrapped_keys.as_bytes().len() + self.sealed().len()
    }

    /// Writes this value under other wrapped keys of its data key; all else stays, byte for byte.
    ///
    /// # Panics
    /// Unless `value` has [`Self::rewrapped_bytes`].
    pub fn write_rewrapped(&self, wrapped_keys: &WrappedKeys, value: &mut [u8]) {
        let (header, rest) = value.split_at_mut(self.head.header_end);
        header.copy_from_slice(self.head.header());
        let (keys, sealed) = rest.split_at_mut(wrapped_keys.as_bytes().len());
        keys.copy_from_slice(wrapped_keys.as_bytes());
        sealed.copy_from_slice(self.sealed());
    }

    /// Nonce, ciphertext and tag. A value was parsed whole.
    fn sealed(&self) -> &[u8] {
        &self.head.bytes[self.head.wrapped_keys_end..]
    }
}

impl Head<'_> {
    /// Whether two values are sealed under the same data key and with the same encryption context: then each opens by the wrapped
    /// keys of the other.
    #[must_use]
    pub fn is_of_same_data_key(&self, other: &Head<'_>) -> bool {
        self.header()[COMMITMENT_OFFSET..] == other.header()[COMMITMENT_OFFSET..]
    }

    /// A value without data that stands for the data key: the same for all values under one data key, encryption context
    /// and wrapped keys, whatever their type and flags. It has a head like theirs, and opens to nothing.
    #[must_use]
    pub fn dek_stub(&self) -> Vec<u8> {
        let preamble = Preamble::of(self);
        let mut stub = preamble.bytes.into_vec();
        stub[TYPE_OFFSET] = 0;
        stub[FLAGS_OFFSET] = 0;
        stub.resize(stub.len() + NONCE_BYTES + TAG_BYTES, 0);
        stub
    }
}

const _: () = assert!(TYPE_OFFSET < COMMITMENT_OFFSET && FLAGS_OFFSET < COMMITMENT_OFFSET, "not part of the identity");

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::context::EncryptionContext;
    use crate::format::ValueType;
    use crate::keys::{Dek, Provider, WrappedKey};
    use crate::value::{DataKey, DerivedKeys};

    fn wrapped(name: &str, bytes: usize) -> WrappedKey {
        WrappedKey { provider: Provider::Local, key_id: format!("local:{name}"), wrapped_dek: vec![7; bytes] }
    }

    fn data_key(context: &EncryptionContext) -> DataKey {
        DataKey::generated(Dek::take_from(&mut [3; 32]).unwrap(), wrapped("old", 65), context, &Rc::default()).unwrap()
    }

    fn sealed(data_key: &DataKey, value_type: ValueType, aad: Option<&[u8]>) -> Vec<u8> {
        let mut value = vec![0; data_key.value_bytes(4)];
        data_key.seal(value_type, &[9; NONCE_BYTES], aad, b"text", &mut value);
        value
    }

    fn rewrap(value: &[u8], wrapped_keys: &[WrappedKey]) -> Vec<u8> {
        let (envelope, wrapped_keys) = (Envelope::parse(value).unwrap(), WrappedKeys::write(wrapped_keys).unwrap());
        let mut rewrapped = vec![0x55; envelope.rewrapped_bytes(&wrapped_keys)];
        envelope.write_rewrapped(&wrapped_keys, &mut rewrapped);
        rewrapped
    }

    #[test]
    fn a_rewrapped_value_differs_in_its_wrapped_keys_only_and_opens() {
        let context = EncryptionContext::from_json(r#"{"table":"t"}"#).unwrap();
        let value = sealed(&data_key(&context), ValueType::Text, Some(b"row"));
        let rewrapped = rewrap(&value, &[wrapped("a-longer-name", 184)]);
        let (before, after) = (Envelope::parse(&value).unwrap(), Envelope::parse(&rewrapped).unwrap());
        assert_eq!(before.head.header(), after.head.header());
        assert_eq!((before.head.nonce, before.ciphertext, before.tag), (after.head.nonce, after.ciphertext, after.tag));
        assert_eq!(after.head.wrapped_keys().unwrap(), [wrapped("a-longer-name", 184)]);
        let dek = Dek::take_from(&mut [3; 32]).unwrap();
        let derived = DerivedKeys::of(dek, &context, &Rc::default());
        let unwrapped = DataKey::unwrapped(derived, wrapped("a-longer-name", 184), context, &after.head).unwrap();
        let mut plaintext = [0; 4];
        assert_eq!(unwrapped.open(&after, Some(b"row"), &mut plaintext), Ok(4));
        assert_eq!(&plaintext, b"text");
        assert_eq!(rewrap(&rewrapped, &[wrapped("old", 65)]), value, "and back again");
    }

    #[test]
    fn a_value_takes_the_wrapped_keys_of_any_value_of_its_data_key_and_of_no_other() {
        let context = EncryptionContext::from_json(r#"{"table":"t"}"#).unwrap();
        let value = sealed(&data_key(&context), ValueType::Text, Some(b"row"));
        let donor =
            rewrap(&sealed(&data_key(&context), ValueType::Jsonb, None), &[wrapped("new", 90), wrapped("more", 7)]);
        let (value, donor) = (Envelope::parse(&value).unwrap(), Envelope::parse(&donor).unwrap());
        assert!(value.head.is_of_same_data_key(&donor.head));
        let keys = WrappedKeys::of(&donor.head).unwrap();
        let mut spliced = vec![0; value.rewrapped_bytes(&keys)];
        value.write_rewrapped(&keys, &mut spliced);
        let spliced = Envelope::parse(&spliced).unwrap();
        assert_eq!(spliced.head.wrapped_keys(), donor.head.wrapped_keys());
        assert_eq!((spliced.head.header(), spliced.sealed()), (value.head.header(), value.sealed()));
        for other in [
            DataKey::generated(Dek::take_from(&mut [4; 32]).unwrap(), wrapped("old", 65), &context, &Rc::default())
                .unwrap(),
            data_key(&EncryptionContext::default()),
        ] {
            let other = sealed(&other, ValueType::Text, Some(b"row"));
            assert!(!Envelope::parse(&other).unwrap().head.is_of_same_data_key(&value.head));
        }
    }

    #[test]
    fn a_wrapped_key_that_does_not_fit_is_refused() {
        assert!(WrappedKeys::write(&[wrapped("old", 65_536)]).is_none());
        assert!(WrappedKeys::write(&[wrapped("old", 40_000), wrapped("old", 40_000)]).is_none());
    }

    #[test]
    fn a_stub_is_the_same_for_all_values_of_a_data_key() {
        let context = EncryptionContext::default();
        let key = data_key(&context);
        let (text, jsonb) = (sealed(&key, ValueType::Text, Some(b"row")), sealed(&key, ValueType::Jsonb, None));
        let stub = Envelope::parse(&text).unwrap().head.dek_stub();
        assert_eq!(stub, Envelope::parse(&jsonb).unwrap().head.dek_stub());
        assert_eq!(Envelope::parse(&stub).unwrap().head.dek_identity(), key.identity());
        assert_ne!(stub, Envelope::parse(&rewrap(&text, &[wrapped("new", 65)])).unwrap().head.dek_stub());
        assert!(key.open(&Envelope::parse(&stub).unwrap(), None, &mut []).is_err());
    }
}
