//! All that is secret about a data key and one message, computed by libraries that the product does not use: for tests that
//! look for it in memory.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

fn encrypted(key: &[u8], block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    aes::Aes256::new(key.try_into().unwrap()).encrypt_block(&mut block);
    block.into()
}

/// The round keys of AES-256 (FIPS 197, section 5.2): written again here, since no library gives them out.
fn round_keys(key: &[u8]) -> Vec<u8> {
    // S-box by its definition: the inverse in GF(2^8) and an affine map.
    let multiply = |mut a: u8, mut b: u8| {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = a << 1 ^ if a & 0x80 == 0 { 0 } else { 0x1b };
            b >>= 1;
        }
        product
    };
    let s_box = |byte: u8| {
        let inverse = (1..=255).find(|other| multiply(byte, *other) == 1).unwrap_or(0);
        (1..5).fold(inverse, |sum, shift| sum ^ inverse.rotate_left(shift)) ^ 0x63
    };
    let mut words: Vec<[u8; 4]> = key.chunks_exact(4).map(|word| word.try_into().unwrap()).collect();
    for at in 8..60 {
        let mut word = words[at - 1];
        if at % 8 == 0 {
            word.rotate_left(1);
            word = word.map(s_box);
            word[0] ^= 1 << (at / 8 - 1);
        } else if at % 8 == 4 {
            word = word.map(s_box);
        }
        words.push(std::array::from_fn(|byte| words[at - 8][byte] ^ word[byte]));
    }
    words.concat()
}

/// Names, and 16 bytes of each, or all 32 (docs/FORMAT.md and C2SP's XAES-256-GCM.md).
pub fn secrets(dek: &[u8], nonce: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (prk, hkdf) = Hkdf::<Sha256>::extract(None, dek);
    let mut key = [0; 32];
    hkdf.expand(b"envelope_pg/v1/\x01key", &mut key).unwrap();
    let l = u128::from_be_bytes(encrypted(&key, [0; 16]));
    let k1 = l << 1 ^ if l >> 127 == 1 { 0x87 } else { 0 };
    let half = |counter| {
        let block = [&[0, counter, b'X', 0], &nonce[..12]].concat();
        encrypted(&key, (u128::from_be_bytes(block.try_into().unwrap()) ^ k1).to_be_bytes())
    };
    let message_key = [half(1), half(2)].concat();
    let counter_block =
        |counter: u8| encrypted(&message_key, [&nonce[12..], &[0, 0, 0, counter]].concat().try_into().unwrap());
    let pieces = |name: &'static str, bytes: &[u8]| -> Vec<_> {
        bytes.chunks_exact(16).map(|piece| (name, piece.to_vec())).collect()
    };
    [
        vec![("K", key.to_vec())],
        pieces("the data key", dek),
        pieces("PRK", &prk),
        pieces("L", &l.to_be_bytes()),
        pieces("K1", &k1.to_be_bytes()),
        pieces("a round key of K", &round_keys(&key)),
        pieces("a round key of the message key", &round_keys(&message_key)),
        pieces("the hash key", &encrypted(&message_key, [0; 16])),
        pieces("the mask of the tag", &counter_block(1)),
        pieces("the key stream", &counter_block(2)),
    ]
    .concat()
}
