//! Suite 01: XAES-256-GCM under a key derived from the data key, with a commitment to it (docs/FORMAT.md).

use crate::cipher::xaes::Xaes256Gcm;
use crate::format::SUITE;
use crate::keys::{Commitment, Dek};

/// The key that seals and opens values: what is kept of a data key. Wiped when dropped; has no Debug.
pub struct SealingKey {
    cipher: Xaes256Gcm,
    commitment: Commitment,
}

impl SealingKey {
    /// Derives the sealing key and the commitment of a data key, and drops the data key.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "nobody keeps a data key")]
    pub fn derive(dek: Dek) -> Self {
        let (key, commitment) = dek.derive(SUITE);
        Self { cipher: Xaes256Gcm::new(&key.0), commitment }
    }

    /// The commitment to the data key.
    #[must_use]
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    /// The cipher under K.
    #[must_use]
    pub fn cipher(&self) -> &Xaes256Gcm {
        &self.cipher
    }
}
