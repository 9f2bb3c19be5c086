//! The wrapped keys of a value, as they stand in it.

use crate::format::key_reference;
use crate::keys::WrappedKey;

/// A provider byte and a length in front of each wrapped key.
pub(super) const STANZA_FIXED_BYTES: usize = 3;

/// The wrapped keys of a value, as they stand in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrappedKeys(pub(super) Box<[u8]>);

impl WrappedKeys {
    /// Writes wrapped keys with their length in front. `None` if one is larger than its length field can say.
    #[must_use]
    pub fn write(wrapped_keys: &[WrappedKey]) -> Option<Self> {
        let mut stanzas = Vec::new();
        for wrapped in wrapped_keys {
            let reference = key_reference::write(&wrapped.key_id)?;
            let stanza_bytes = 1 + reference.len() + wrapped.wrapped_dek.len();
            stanzas.push(wrapped.provider as u8);
            stanzas.extend(u16::try_from(stanza_bytes).ok()?.to_be_bytes());
            stanzas.push(u8::try_from(reference.len()).ok()?);
            stanzas.extend(&reference);
            stanzas.extend(&wrapped.wrapped_dek);
        }
        let length = u16::try_from(stanzas.len()).ok()?.to_be_bytes();
        Some(Self([&length[..], &stanzas].concat().into()))
    }

    /// The bytes, the length in front included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
