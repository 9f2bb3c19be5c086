//! Nonces from the kernel, a buffer at a time.
//!
//! PostgreSQL forks its backends: a user-space generator seeded before the fork would repeat nonces in each of them. So
//! there is none. The buffer holds bytes of the kernel's generator as they came, each is handed out once and wiped, and
//! whoever owns the buffer makes it after the fork.

use zeroize::{Zeroize, optimization_barrier};

use crate::format::NONCE_BYTES;

/// A system call for 4 KiB costs little more than one for 24 bytes.
const BUFFER_BYTES: usize = 170 * NONCE_BYTES;

/// Random bytes of the kernel's that were not used yet. Wiped when dropped; has no Debug.
pub struct Nonces {
    buffer: Box<[u8; BUFFER_BYTES]>,
    used: usize,
}

impl Nonces {
    /// An empty buffer; the first nonce fills it.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Box::new([0; BUFFER_BYTES]), used: BUFFER_BYTES }
    }

    /// A random 192-bit nonce.
    ///
    /// # Errors
    /// If the kernel has no randomness to give; nothing but a wrong sandbox makes that happen.
    pub fn next_nonce(&mut self) -> Result<[u8; NONCE_BYTES], getrandom::Error> {
        if self.used == BUFFER_BYTES {
            getrandom::fill(&mut self.buffer[..])?;
            self.used = 0;
        }
        let unused = self.buffer[self.used..].first_chunk_mut::<NONCE_BYTES>();
        let nonce = unused.expect("the buffer is a multiple of a nonce");
        let taken = *nonce;
        // In a store or two: Zeroize writes byte by byte.
        *nonce = [0; NONCE_BYTES];
        optimization_barrier(nonce);
        self.used += NONCE_BYTES;
        Ok(taken)
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Nonces {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_twice_over_many_refills() {
        let mut nonces = Nonces::new();
        let distinct: HashSet<_> = (0..1_000).map(|_| nonces.next_nonce().unwrap()).collect();
        assert_eq!(distinct.len(), 1_000);
    }

    #[test]
    fn what_was_handed_out_is_wiped() {
        let mut nonces = Nonces::new();
        nonces.next_nonce().unwrap();
        assert_eq!(nonces.buffer[..NONCE_BYTES], [0; NONCE_BYTES]);
        assert_ne!(nonces.buffer[NONCE_BYTES..2 * NONCE_BYTES], [0; NONCE_BYTES]);
    }
}
