//! XAES-256-GCM (C2SP, XAES-256-GCM.md): AES-256-GCM for random 192-bit nonces.
//!
//! ```text
//! L  = AES-256(K, 0^128);   K1 = L doubled in GF(2^128), as in CMAC (NIST SP 800-38B, section 6.1)
//! M1 = 00 01 58 00 || N[:12];   M2 = 00 02 58 00 || N[:12]
//! Kx = AES-256(K, M1 xor K1) || AES-256(K, M2 xor K1)        one CMAC each: the KDF of NIST SP 800-108r1, section 4.1
//! C || T = AES-256-GCM(Kx, N[12:], P, A)                     NIST SP 800-38D
//! ```
//! AES-GCM is our own short form of it for short messages, and aws-lc's for all others: each where it is the faster one
//! (`make bench-core`), and each in a stack frame of its own, as one for both costs a short message 20 ns. aws-lc wipes its
//! key schedules when it frees them; everything else is on the stack, which is wiped.
//! The tests hold both against RustCrypto's implementation.

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::gcm;
use crate::cipher::stack::with_wiped_stack;
use crate::error::ValueError;
use crate::format::{NONCE_BYTES, TAG_BYTES};
use crate::keys::KEY_BYTES;

const BLOCK_BYTES: usize = 16;
/// More than sealing and opening use: a test looks for what they leave. From 2 KiB on memset takes its time.
const STACK_BYTES: usize = 1792;
/// Bytes of the nonce that go into the derived key; the rest is the nonce of AES-GCM.
const DERIVATION_NONCE_BYTES: usize = NONCE_BYTES - gcm::NONCE_BYTES;
/// Where they stand in M1 and M2.
const NONCE_OFFSET: usize = BLOCK_BYTES - DERIVATION_NONCE_BYTES;

/// XAES-256-GCM under one key. The key schedule is wiped when dropped; has no Debug.
pub struct Xaes256Gcm {
    cipher: Aes256Enc,
    /// M1 xor K1 and M2 xor K1, where the nonce is still 0.
    inputs: Zeroizing<[[u8; BLOCK_BYTES]; 2]>,
}

impl Xaes256Gcm {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let cipher = Aes256Enc::new(key.into());
        let mut block = aes::Block::default();
        cipher.encrypt_block(&mut block);
        let l = Zeroizing::new(u128::from_be_bytes(block.into()));
        block.zeroize();
        // Doubling without a branch on the secret top bit.
        let k1 = Zeroizing::new((*l << 1) ^ ((*l >> 127) * 0x87));
        let input = |counter| {
            let mut block = [0; BLOCK_BYTES];
            block[..NONCE_OFFSET].copy_from_slice(&[0, counter, b'X', 0]);
            (u128::from_be_bytes(block) ^ *k1).to_be_bytes()
        };
        Self { cipher, inputs: Zeroizing::new([input(1), input(2)]) }
    }

    /// Encrypts and authenticates `plaintext` into `ciphertext`, which is as long, and `tag`.
    ///
    /// # Panics
    /// If the lengths differ: a mistake of the caller's.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated_data: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8],
    ) {
        if gcm::is_short(associated_data.len(), plaintext.len()) {
            return with_wiped_stack::<STACK_BYTES, _>(|| {
                let (key, nonce) = self.derive(nonce);
                gcm::seal(&key, nonce, associated_data, plaintext, ciphertext, tag);
            });
        }
        with_wiped_stack::<STACK_BYTES, _>(|| {
            let (key, nonce) = self.derive(nonce);
            let nonce = Nonce::assume_unique_for_key(*nonce);
            aws_lc_key(&key)
                .seal_out_of_place_scatter(nonce, Aad::from(associated_data), plaintext, ciphertext, &[], tag)
                .expect("the output is as long as the input, which is shorter than AES-GCM's limit of 64 GiB");
        });
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
        let is_authentic = if gcm::is_short(associated_data.len(), ciphertext.len()) {
            with_wiped_stack::<STACK_BYTES, _>(|| {
                let (key, nonce) = self.derive(nonce);
                gcm::open(&key, nonce, associated_data, ciphertext, tag, plaintext)
            })
        } else {
            with_wiped_stack::<STACK_BYTES, _>(|| {
                let (key, nonce) = self.derive(nonce);
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let associated_data = Aad::from(associated_data);
                aws_lc_key(&key).open_separate_gather(nonce, associated_data, ciphertext, tag, plaintext).is_ok()
            })
        };
        if is_authentic {
            return Ok(());
        }
        plaintext.fill(0);
        Err(ValueError::AuthenticationFailed)
    }

    /// The key and the nonce of AES-GCM.
    #[inline(always)]
    fn derive<'a>(&self, nonce: &'a [u8; NONCE_BYTES]) -> ([u8; KEY_BYTES], &'a [u8; gcm::NONCE_BYTES]) {
        let (derivation_nonce, gcm_nonce) =
            nonce.split_first_chunk::<DERIVATION_NONCE_BYTES>().expect("it is longer than a half");
        // Byte by byte, so that the compiler does it in vector registers: AES would have to wait for two halves to be joined.
        let nonce_block: [u8; BLOCK_BYTES] =
            std::array::from_fn(|at| at.checked_sub(NONCE_OFFSET).map_or(0, |at| derivation_nonce[at]));
        let mut key = self.inputs.map(|input| std::array::from_fn(|at| input[at] ^ nonce_block[at]));
        for block in aes::Block::cast_slice_from_core_mut(&mut key) {
            self.cipher.encrypt_block(block);
        }
        let key = key.as_flattened().try_into().expect("two blocks are a key");
        (key, gcm_nonce.try_into().expect("the other half"))
    }
}

fn aws_lc_key(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key is 32 bytes"))
}
