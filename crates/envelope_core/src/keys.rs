//! The key hierarchy on one screen.
//!
//! ```text
//! KeyId            what a statement names: a KMS key or alias, or a key of the local provider
//!   -> KEK         stays in the key provider
//!     -> Dek       32 bytes from the provider's GenerateDataKey; dropped as soon as the two below are derived
//!                  PRK = HKDF-Extract-SHA-256(salt = "", DEK)                              RFC 5869, section 2.2
//!       -> K       HKDF-Expand(PRK, "envelope_pg/v1/" || suite || "key", 32): XAES-256-GCM key      section 2.3
//!       -> C       HKDF-Expand(PRK, "envelope_pg/v1/" || suite || "commit", 32): commitment, public
//! WrappedKey       the DEK under the KEK, as it travels in each value
//! ```

pub mod arn;
pub(crate) mod hkdf;
pub mod id;
pub mod named;
pub mod stack;

use std::cell::OnceCell;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use crate::error::ArgumentError;
pub use arn::{KeyArn, canonical, is_region, is_same_key};
use hkdf::hkdf_sha256;
pub use id::{KeyId, LocalKeyName, Provider, check_resolved};

/// The cipher suite that this release knows: HKDF-SHA-256, XAES-256-GCM, 32-byte commitment.
pub const SUITE: u8 = 1;
/// Bytes of a data key, and of each key that is derived from one.
pub const KEY_BYTES: usize = 32;
const LABEL: &[u8] = b"envelope_pg/v1/";
const KEY_INFO: [&[u8]; 3] = [LABEL, &[SUITE], b"key"];
const COMMITMENT_INFO: [&[u8]; 3] = [LABEL, &[SUITE], b"commit"];

/// The bytes of a key. Zeroized when dropped; has no Debug. In a box it has memory of its own in the extension, by its alignment: left
/// out of core dumps, wiped on fork, and locked (`src/pg/key_memory.rs`). A value that moves leaves its bytes behind, unwiped, on the
/// stack or in the future that it came from: so box it before it is filled.
#[repr(align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyBytes([u8; KEY_BYTES]);

impl KeyBytes {
    /// Room for a key, in a box.
    #[must_use]
    pub fn zero() -> Box<Self> {
        Box::new(Self([0; KEY_BYTES]))
    }
}

impl std::ops::Deref for KeyBytes {
    type Target = [u8; KEY_BYTES];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::ops::DerefMut for KeyBytes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// A plaintext data key. Zeroized when dropped; has no Debug.
pub struct Dek {
    bytes: Box<KeyBytes>,
    /// Once somebody has asked for it.
    commitment: OnceCell<Commitment>,
}

impl ZeroizeOnDrop for Dek {}

impl Dek {
    /// Takes a data key out of a buffer, and wipes the buffer. `None` unless it holds exactly 32 bytes.
    #[must_use]
    pub fn take_from(buffer: &mut [u8]) -> Option<Self> {
        let dek = (buffer.len() == KEY_BYTES).then(|| {
            let mut bytes = KeyBytes::zero();
            bytes.copy_from_slice(buffer);
            Self { bytes, commitment: OnceCell::new() }
        });
        buffer.zeroize();
        dek
    }

    /// The bytes, for a key provider to wrap.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// What values under it commit to.
    #[must_use]
    pub fn commitment(&self) -> Commitment {
        *self.commitment.get_or_init(|| {
            let mut commitment = [0; KEY_BYTES];
            hkdf_sha256(b"", &**self.bytes, [(&COMMITMENT_INFO, &mut commitment)]);
            Commitment(commitment)
        })
    }

    /// Another copy, for another holder.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut bytes = KeyBytes::zero();
        bytes.copy_from_slice(self.as_bytes());
        Self { bytes, commitment: self.commitment.clone() }
    }

    /// K and C.
    pub(crate) fn derive(&self) -> (SealingKeyBytes, Commitment) {
        let (mut key, mut commitment) = (SealingKeyBytes(KeyBytes::zero()), [0; KEY_BYTES]);
        hkdf_sha256(b"", &**self.bytes, [(&KEY_INFO, &mut **key.0), (&COMMITMENT_INFO, &mut commitment)]);
        (key, Commitment(commitment))
    }
}

/// K, on its way into the cipher. Zeroized when dropped; has no Debug.
pub(crate) struct SealingKeyBytes(pub(crate) Box<KeyBytes>);

/// C: commits to the data key, and names it in public.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Commitment(pub [u8; KEY_BYTES]);

/// A data key as it travels in values: encrypted under a key of its provider.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "UncheckedWrappedKey")]
pub struct WrappedKey {
    /// Who can unwrap it.
    pub provider: Provider,
    /// The key that wraps it: a key ARN, or `local:name`. Never an alias.
    pub key_id: String,
    /// The wrapped data key: the CiphertextBlob of KMS, or the local provider's.
    pub wrapped_dek: Vec<u8>,
}

/// A [`WrappedKey`] from somebody else.
#[derive(Deserialize)]
struct UncheckedWrappedKey {
    provider: Provider,
    key_id: String,
    wrapped_dek: Vec<u8>,
}

impl TryFrom<UncheckedWrappedKey> for WrappedKey {
    type Error = ArgumentError;

    fn try_from(unchecked: UncheckedWrappedKey) -> Result<Self, ArgumentError> {
        let UncheckedWrappedKey { provider, key_id, wrapped_dek } = unchecked;
        let key_id = KeyId::parse(&key_id)?;
        match key_id.provider() == provider {
            true => Ok(Self { provider, key_id: key_id.to_string(), wrapped_dek }),
            false => Err(ArgumentError::KeyId("it is of another provider")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_is_32_bytes_and_leaves_no_copy() {
        let mut buffer = [7; KEY_BYTES];
        assert!(Dek::take_from(&mut buffer).is_some());
        assert_eq!(buffer, [0; KEY_BYTES]);
        assert!(Dek::take_from(&mut [7; 16]).is_none());
        assert!(Dek::take_from(&mut [7; 33]).is_none());
    }
}
