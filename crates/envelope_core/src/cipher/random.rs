//! Random bytes for nonces: the kernel's, or from a buffer that is expanded from a seed of the kernel's.
//!
//! PostgreSQL forks its backends, and a virtual machine can be cloned or resumed from a snapshot of its memory: a generator that
//! goes on after that repeats nonces. So there is none that goes on. Whoever owns the buffer makes it after the fork, and no
//! buffer outlives the statement that it was made for; the first value of a statement has its bytes from the kernel. What is
//! left is a virtual machine that is cloned in the middle of a statement (docs/THREAT_MODEL.md).
//!
//! ```text
//! seed = 32 bytes of the kernel's;   buffer = AES-256(seed, 0) || AES-256(seed, 1) || ...
//! ```
//! which is counter mode (NIST SP 800-38A, section 6.5), as in Bernstein's "Fast-key-erasure random-number generators". Nonces
//! are public, so all that counts is that none repeats: the blocks of a buffer are distinct, and seeds of 256 bits do not
//! repeat. The kernel's own bytes would be as good, but a system call for each value takes longer than AES-GCM of a short one
//! (docs/PERFORMANCE.md).

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use crate::format::NONCE_BYTES;

const SEED_BYTES: usize = 32;
type Block = [u8; 16];

/// 64 nonces: a system call and a key schedule are then a small part of each.
const BLOCKS: usize = 96;
const BUFFER_BYTES: usize = BLOCKS * size_of::<Block>();

/// Random bytes that were not used yet. Has no Debug.
pub struct Nonces {
    buffer: Box<[Block; BLOCKS]>,
    /// In bytes.
    used: usize,
    statement: Option<i64>,
}

impl Nonces {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Box::new([Block::default(); BLOCKS]), used: BUFFER_BYTES, statement: None }
    }

    /// Fills `random` for one nonce. `statement` is different in each statement.
    ///
    /// # Errors
    /// If the kernel has no randomness to give; nothing but a wrong sandbox makes that happen.
    pub fn draw(&mut self, statement: i64, random: &mut [u8; NONCE_BYTES]) -> Result<(), getrandom::Error> {
        if self.statement != Some(statement) {
            return self.first_of(statement, random);
        }
        if self.used == BUFFER_BYTES {
            self.fill()?;
        }
        let unused = self.buffer.as_flattened_mut()[self.used..].first_chunk_mut::<NONCE_BYTES>();
        self.used += NONCE_BYTES;
        *random = std::mem::take(unused.expect("the buffer is a multiple of a nonce"));
        Ok(())
    }

    #[cold]
    fn first_of(&mut self, statement: i64, random: &mut [u8; NONCE_BYTES]) -> Result<(), getrandom::Error> {
        getrandom::fill(random)?;
        (self.statement, self.used) = (Some(statement), BUFFER_BYTES);
        Ok(())
    }

    #[cold]
    fn fill(&mut self) -> Result<(), getrandom::Error> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        getrandom::fill(&mut seed[..])?;
        expand(&seed, &mut self.buffer[..]);
        self.used = 0;
        Ok(())
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

/// The key stream of AES-256 in counter mode, from counter 0 on.
fn expand(seed: &[u8; SEED_BYTES], blocks: &mut [Block]) {
    for (counter, block) in (0_u128..).zip(blocks.iter_mut()) {
        *block = counter.to_be_bytes();
    }
    Aes256Enc::new(seed.into()).encrypt_blocks(aes::Block::cast_slice_from_core_mut(blocks));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn next(nonces: &mut Nonces, statement: i64) -> [u8; NONCE_BYTES] {
        let mut random = [0; NONCE_BYTES];
        nonces.draw(statement, &mut random).unwrap();
        random
    }

    #[test]
    fn no_nonce_twice_over_many_refills_and_statements() {
        let mut nonces = Nonces::new();
        let distinct: HashSet<_> = (0..10_000).map(|number| next(&mut nonces, number / 1_000)).collect();
        assert_eq!(distinct.len(), 10_000);
    }

    /// As a virtual machine that is resumed twice.
    #[test]
    fn a_copy_of_an_idle_session_draws_others() {
        let mut nonces = Nonces::new();
        (0..10).for_each(|_| _ = next(&mut nonces, 1));
        let mut copy = Nonces { buffer: nonces.buffer.clone(), used: nonces.used, statement: nonces.statement };
        let mut drawn: HashSet<_> = (0..200).map(|_| next(&mut nonces, 2)).collect();
        drawn.extend((0..200).map(|_| next(&mut copy, 2)));
        assert_eq!(drawn.len(), 400);
    }

    #[test]
    fn what_was_handed_out_is_not_handed_out_again() {
        let mut nonces = Nonces::new();
        next(&mut nonces, 1);
        next(&mut nonces, 1);
        let buffer = nonces.buffer.as_flattened();
        assert_eq!(buffer[..NONCE_BYTES], [0; NONCE_BYTES]);
        assert_ne!(buffer[NONCE_BYTES..2 * NONCE_BYTES], [0; NONCE_BYTES]);
    }

    /// H, E(K, Y0) and E(K, Y1) of test cases 13 and 14 of McGrew and Viega, "The Galois/Counter Mode of Operation",
    /// appendix B, where Y0 is 1: the first three counters.
    #[test]
    fn mcgrew_viega() {
        let mut blocks = [Block::default(); 3];
        expand(&[0; SEED_BYTES], &mut blocks);
        let expected = concat!(
            "dc95c078a2408989ad48a21492842087",
            "530f8afbc74536b9a963b4f1c4cb738b",
            "cea7403d4d606b6e074ec5d3baf39d18"
        );
        assert_eq!(hex::encode(blocks.as_flattened()), expected);
    }

    #[test]
    fn agrees_with_aws_lc() {
        use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};

        for seed in [std::array::from_fn(|at| at as u8), [0xff; SEED_BYTES]] {
            let mut blocks = [Block::default(); 300];
            expand(&seed, &mut blocks);
            let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, &seed).unwrap()).unwrap();
            let mut key_stream = [0; 300 * size_of::<Block>()];
            key.less_safe_encrypt(&mut key_stream, EncryptionContext::Iv128([0; 16].into())).unwrap();
            assert!(blocks.as_flattened() == key_stream);
        }
    }

    #[test]
    fn each_buffer_has_a_seed_of_its_own() {
        let mut nonces = [Nonces::new(), Nonces::new()];
        let [one, other] = nonces.each_mut().map(|nonces| [(); 129].map(|()| next(nonces, 1)));
        assert_ne!(one[1], other[1]);
        assert_ne!(one[1], one[65]);
    }
}
