//! AES-256-GCM (NIST SP 800-38D, section 7) of a short message under a key that is used for this message alone.
//!
//! For such a message libraries spend most of their time on what only a long one pays back: a context on the heap, powers of
//! the hash key for blocks that never come, a call for each step. Here everything that is encrypted under the key goes
//! through it in one row, and everything that is hashed lies in one buffer:
//!
//! ```text
//! J0 = nonce || 1                                                                                        section 7.1
//! 0^128, J0, J0 + 1, ...   encrypted: the hash key H, the mask of the tag, the key stream
//! T = GHASH_H(A 0* || C 0* || len(A) || len(C)) xor mask                                            sections 6.4, 7.1
//! ```
//! AES and GHASH are RustCrypto's. The tests hold it against two other implementations.

use std::mem;

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use crate::format::TAG_BYTES;
use crate::keys::KEY_BYTES;

/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 12;

type Block = [u8; 16];

/// Of associated data and of text, together. aws-lc is faster from about 35 on (`make bench-core`); but the shortest messages,
/// which most values are, would pay for more room: it is zeroed before and wiped after.
const MAX_BLOCKS: usize = 24;
/// In front of the key stream.
const OTHER_BLOCKS: usize = 2;
const ROOM: usize = OTHER_BLOCKS + MAX_BLOCKS;

/// Whether a message of so many bytes is short.
pub fn is_short(associated_data_bytes: usize, text_bytes: usize) -> bool {
    blocks(associated_data_bytes) + blocks(text_bytes) <= MAX_BLOCKS
}

/// Encrypts and authenticates a short message. What is secret stays on the stack: the caller wipes it.
///
/// # Panics
/// If the message is not short, or the lengths of plaintext and ciphertext differ: a mistake of the caller's.
#[inline(always)]
pub fn seal(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    associated_data: &[u8],
    plaintext: &[u8],
    ciphertext: &mut [u8],
    tag: &mut [u8],
) {
    let mut message = Message::EMPTY;
    message.lay_out(nonce, associated_data, plaintext.len());
    message.encrypt(key, plaintext.len());
    message.apply_key_stream(plaintext, ciphertext);
    message.lay_out_text(associated_data, ciphertext);
    tag.copy_from_slice(&message.tag(associated_data, ciphertext));
}

/// Verifies and decrypts a short message; false if it is not authentic, and then `plaintext` is as it was. What is secret
/// stays on the stack: the caller wipes it.
///
/// # Panics
/// As [`seal`].
#[must_use]
#[inline(always)]
pub fn open(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    associated_data: &[u8],
    ciphertext: &[u8],
    tag: &[u8; TAG_BYTES],
    plaintext: &mut [u8],
) -> bool {
    let mut message = Message::EMPTY;
    message.lay_out(nonce, associated_data, ciphertext.len());
    message.lay_out_text(associated_data, ciphertext);
    message.encrypt(key, ciphertext.len());
    let is_authentic = verify_slices_are_equal(&message.tag(associated_data, ciphertext), tag).is_ok();
    if is_authentic {
        message.apply_key_stream(ciphertext, plaintext);
    }
    is_authentic
}

/// What goes through AES and GHASH for one message. It stays where it is made, and all that does not depend on the key is laid
/// out before the key is expanded: to read in one piece what was just written in several, which a copy also does, a processor
/// waits until the writes are done.
struct Message {
    /// The hash key, the mask of the tag, the key stream.
    encrypted: [Block; ROOM],
    /// Associated data, ciphertext, lengths.
    hashed: [Block; ROOM],
}

impl Message {
    const EMPTY: Self = Self { encrypted: [[0; 16]; ROOM], hashed: [[0; 16]; ROOM] };

    #[inline(always)]
    fn lay_out(&mut self, nonce: &[u8; NONCE_BYTES], associated_data: &[u8], text_bytes: usize) {
        let text_blocks = blocks(text_bytes);
        for (counter, block) in (1_u32..).zip(&mut self.encrypted[1..OTHER_BLOCKS + text_blocks]) {
            block[..NONCE_BYTES].copy_from_slice(nonce);
            block[NONCE_BYTES..].copy_from_slice(&counter.to_be_bytes());
        }
        self.hashed.as_flattened_mut()[..associated_data.len()].copy_from_slice(associated_data);
        let lengths = &mut self.hashed[blocks(associated_data.len()) + text_blocks];
        lengths[..8].copy_from_slice(&bits(associated_data.len()).to_be_bytes());
        lengths[8..].copy_from_slice(&bits(text_bytes).to_be_bytes());
    }

    #[inline(always)]
    fn lay_out_text(&mut self, associated_data: &[u8], ciphertext: &[u8]) {
        let text = self.hashed[blocks(associated_data.len())..].as_flattened_mut();
        text[..ciphertext.len()].copy_from_slice(ciphertext);
    }

    #[inline(always)]
    fn encrypt(&mut self, key: &[u8; KEY_BYTES], text_bytes: usize) {
        let cipher = Aes256Enc::new(key.into());
        let used = &mut self.encrypted[..OTHER_BLOCKS + blocks(text_bytes)];
        cipher.encrypt_blocks(aes::Block::cast_slice_from_core_mut(used));
        // Dropping it would wipe the key schedule byte by byte, which costs as much as making it.
        mem::forget(cipher);
    }

    #[inline(always)]
    fn apply_key_stream(&self, input: &[u8], output: &mut [u8]) {
        assert_eq!(input.len(), output.len(), "the output is as long as the input");
        let key_stream = self.encrypted[OTHER_BLOCKS..].as_flattened();
        for ((output, input), key) in output.iter_mut().zip(input).zip(key_stream) {
            *output = input ^ key;
        }
    }

    #[inline(always)]
    fn tag(&self, associated_data: &[u8], ciphertext: &[u8]) -> [u8; TAG_BYTES] {
        let [hash_key, mask, ..] = &self.encrypted;
        let hashed = &self.hashed[..=blocks(associated_data.len()) + blocks(ciphertext.len())];
        let mut ghash = GHash::new(hash_key.into());
        ghash.update(ghash::Block::cast_slice_from_core(hashed));
        let hash = u128::from_ne_bytes(ghash.finalize().into());
        (hash ^ u128::from_ne_bytes(*mask)).to_ne_bytes()
    }
}

fn blocks(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<Block>())
}

fn bits(bytes: usize) -> u64 {
    bytes as u64 * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test cases 13 to 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: those with a key of 256
    /// bits and a nonce of 96.
    const CASES: [[&str; 6]; 4] = [
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "",
            "",
            "530f8afbc74536b9a963b4f1c4cb738b",
        ],
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ],
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
            "b094dac5d93471bdec1a502270e3cc6c",
        ],
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ],
    ];

    #[test]
    fn mcgrew_viega() {
        for case in CASES {
            let [key, nonce, associated_data, plaintext, ciphertext, tag] = case.map(|hex| hex::decode(hex).unwrap());
            let (key, nonce) = (key.try_into().unwrap(), nonce.try_into().unwrap());
            let (mut sealed, mut sealed_tag) = (vec![0; plaintext.len()], [0; TAG_BYTES]);
            seal(&key, &nonce, &associated_data, &plaintext, &mut sealed, &mut sealed_tag);
            assert_eq!((&sealed, &sealed_tag[..]), (&ciphertext, &tag[..]));
            let mut opened = vec![0; plaintext.len()];
            assert!(open(&key, &nonce, &associated_data, &ciphertext, &sealed_tag, &mut opened));
            assert_eq!(opened, plaintext);
        }
    }

    #[test]
    fn what_is_not_authentic_leaves_nothing_behind() {
        let (key, nonce, associated_data, plaintext) = ([1; KEY_BYTES], [2; NONCE_BYTES], [3; 40], [4; 50]);
        let (mut ciphertext, mut tag) = ([0; 50], [0; TAG_BYTES]);
        seal(&key, &nonce, &associated_data, &plaintext, &mut ciphertext, &mut tag);
        let opens = |associated_data: &[u8], ciphertext: &[u8], tag: &[u8; TAG_BYTES]| {
            let mut opened = [0x55; 50];
            let opens = open(&key, &nonce, associated_data, ciphertext, tag, &mut opened);
            assert_eq!(opened, if opens { plaintext } else { [0x55; 50] });
            opens
        };
        assert!(opens(&associated_data, &ciphertext, &tag));
        for bit in 0..8 * TAG_BYTES {
            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&associated_data, &ciphertext, &other), "bit {bit} of the tag");
        }
        for bit in 0..8 * ciphertext.len() {
            let mut other = ciphertext;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&associated_data, &other, &tag), "bit {bit} of the ciphertext");
        }
        for bit in 0..8 * associated_data.len() {
            let mut other = associated_data;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&other, &ciphertext, &tag), "bit {bit} of the associated data");
        }
        // Zeros at the end are not the padding.
        assert!(!opens(&[&associated_data[..], &[0]].concat(), &ciphertext, &tag));
    }

    #[test]
    fn all_lengths_up_to_the_longest() {
        use aes_gcm::aead::{Aead, Payload};
        use aes_gcm::{Aes256Gcm, KeyInit};

        let (key, nonce, bytes) = ([7; KEY_BYTES], [8; NONCE_BYTES], std::array::from_fn::<u8, 400, _>(|at| at as u8));
        let other = Aes256Gcm::new(&key.into());
        let mut tried = 0;
        for associated_data in (0..400).map(|length| &bytes[..length]) {
            for plaintext in (0..400).map(|length| &bytes[..length]) {
                if is_short(associated_data.len(), plaintext.len()) {
                    let mut sealed = vec![0; plaintext.len() + TAG_BYTES];
                    let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
                    seal(&key, &nonce, associated_data, plaintext, ciphertext, tag);
                    let payload = Payload { msg: plaintext, aad: associated_data };
                    assert_eq!(sealed, other.encrypt(&nonce.into(), payload).unwrap());
                    tried += 1;
                }
            }
        }
        assert_eq!(tried, (0..=MAX_BLOCKS * 16).map(|bytes| 1 + 16 * (MAX_BLOCKS - blocks(bytes))).sum::<usize>());
    }
}
