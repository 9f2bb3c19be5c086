//! Suite 01: XAES-256-GCM under a key derived from the data key, with a commitment to it (docs/FORMAT.md).

use std::cell::RefCell;
use std::rc::Rc;

use crate::cipher::message_keys::{Batch, KeptMessageKeys, MessageKeys};
use crate::cipher::xaes::{self, GCM_NONCE_BYTES, MessageKey, NoncePrefix, Xaes256Gcm};
use crate::error::ValueError;
use crate::format::{NONCE_BYTES, TAG_BYTES};
use crate::keys::{Commitment, Dek};

/// The key that seals and opens values: what is kept of a data key. Wiped when dropped; has no Debug.
pub struct SealingKey {
    cipher: Box<Xaes256Gcm>,
    commitment: Commitment,
    batch: RefCell<Option<Batch>>,
    kept: KeptMessageKeys,
}

impl SealingKey {
    /// Derives the sealing key and the commitment of a data key, and drops the data key.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "nobody keeps a data key")]
    pub fn derive(dek: Dek, message_keys: &Rc<MessageKeys>) -> Self {
        let (key, commitment) = dek.derive();
        Self {
            cipher: Xaes256Gcm::new(&key.0),
            commitment,
            batch: RefCell::new(None),
            kept: KeptMessageKeys::new(message_keys),
        }
    }

    /// The commitment to the data key.
    #[must_use]
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    /// Has `seal` seal a value with the next nonce, in its two halves, and its message key. `random` was drawn for this value: the
    /// first half of it is used if the value begins a batch.
    pub fn seal<T>(
        &self,
        random: &[u8; NONCE_BYTES],
        plaintext_bytes: usize,
        seal: impl FnOnce(&NoncePrefix, &[u8; GCM_NONCE_BYTES], &MessageKey) -> T,
    ) -> T {
        let (prefix, rest) = xaes::split(random);
        let mut batch = self.batch.borrow_mut();
        if !batch.as_mut().is_some_and(|batch| batch.take(plaintext_bytes)) {
            *batch = Some(Batch::with(*prefix, self.cipher.message_key(prefix), plaintext_bytes));
        }
        let batch = batch.as_ref().expect("it has just begun, if not before");
        seal(&batch.prefix, rest, &batch.key)
    }

    /// Decrypts and verifies `ciphertext` into `plaintext`, which is as long.
    ///
    /// # Errors
    /// [`ValueError::AuthenticationFailed`]; `plaintext` is then wiped.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated_data: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &mut [u8],
    ) -> Result<(), ValueError> {
        let (prefix, nonce) = xaes::split(nonce);
        let mut open = |key: &MessageKey| key.open(nonce, associated_data, ciphertext, tag, plaintext);
        match &*self.batch.borrow() {
            Some(batch) if batch.prefix == *prefix => open(&batch.key),
            _ => self.kept.open(prefix, || self.cipher.message_key(prefix), open),
        }
    }
}
