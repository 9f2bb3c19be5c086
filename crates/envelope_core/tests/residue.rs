//! What sealing and opening leave of their keys on the stack: nothing. The stack is read as the kernel sees it, so that no
//! compiler removes what is looked for.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::thread;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use envelope_core::cipher::xaes::Xaes256Gcm;

use common::random_bytes;

/// Every byte of what is looked for is stored so, or else this test would find its own copies.
const MASK: u8 = 0xa5;
/// Between the code that looks and the stack that it looks at.
const DISTANCE: usize = 32 << 10;
const STACK_BYTES: usize = 512 << 10;

/// Something secret, masked.
struct Secret {
    name: &'static str,
    masked: [u8; 16],
}

impl Secret {
    fn all_of(name: &'static str, bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(16).map(move |piece| Self { name, masked: std::array::from_fn(|at| piece[at] ^ MASK) })
    }
}

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

/// All that is secret about one message (docs/FORMAT.md and C2SP's XAES-256-GCM.md).
fn secrets(key: &[u8], nonce: &[u8]) -> Vec<Secret> {
    let l = u128::from_be_bytes(encrypted(key, [0; 16]));
    let k1 = l << 1 ^ if l >> 127 == 1 { 0x87 } else { 0 };
    let half = |counter| {
        let block = [&[0, counter, b'X', 0], &nonce[..12]].concat();
        encrypted(key, (u128::from_be_bytes(block.try_into().unwrap()) ^ k1).to_be_bytes())
    };
    let gcm_key = [half(1), half(2)].concat();
    let counter_block =
        |counter: u8| encrypted(&gcm_key, [&nonce[12..], &[0, 0, 0, counter]].concat().try_into().unwrap());
    let mut secrets = Vec::new();
    secrets.extend(Secret::all_of("a round key of K", &round_keys(key)));
    secrets.extend(Secret::all_of("a round key of the GCM key", &round_keys(&gcm_key)));
    secrets.extend(Secret::all_of("the hash key", &encrypted(&gcm_key, [0; 16])));
    secrets.extend(Secret::all_of("the mask of the tag", &counter_block(1)));
    secrets.extend(Secret::all_of("the key stream", &counter_block(2)));
    secrets
}

/// Does some work far down the stack of a new thread, and says which secrets it left there.
fn left_by(secrets: Vec<Secret>, work: impl FnOnce() + Send + 'static) -> Vec<&'static str> {
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        far_down(work);
        let here = black_box(&secrets) as *const _ as usize;
        let stack = stack_below(here);
        let unmasked = |at: usize, secret: &Secret| (0..16).all(|byte| stack[at + byte] == secret.masked[byte] ^ MASK);
        let mut left: Vec<_> = secrets
            .iter()
            .filter(|secret| (0..stack.len() - 16).any(|at| unmasked(at, secret)))
            .map(|secret| secret.name)
            .collect();
        left.dedup();
        left
    });
    thread.unwrap().join().unwrap()
}

#[inline(never)]
fn far_down(work: impl FnOnce()) {
    let distance = black_box([0_u8; DISTANCE]);
    in_its_frame(work);
    black_box(distance);
}

#[inline(never)]
fn in_its_frame(work: impl FnOnce()) {
    work();
}

/// What lies between the end of this thread's stack and an address on it.
fn stack_below(address: usize) -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let start = maps
        .lines()
        .filter_map(|line| line.split(' ').next()?.split_once('-'))
        .map(|(start, end)| (usize::from_str_radix(start, 16).unwrap(), usize::from_str_radix(end, 16).unwrap()))
        .find(|(start, end)| (start..end).contains(&&address))
        .unwrap()
        .0;
    let start = start.max(address - STACK_BYTES);
    let mut stack = vec![0; address - start];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut stack, start as u64).unwrap();
    stack
}

#[test]
fn sealing_and_opening_leave_no_key_on_the_stack() {
    // Short messages and others, the longest short ones, and more than any block size.
    for bytes in [0, 16, 100, 336, 337, 1_000, 5_000, 70_000] {
        let (key, nonce): (Vec<u8>, Vec<u8>) = (random_bytes(32), random_bytes(24));
        let secrets = || secrets(&key, &nonce);
        let cipher = || Box::new(Xaes256Gcm::new(key.as_slice().try_into().unwrap()));
        let nonce: [u8; 24] = nonce.as_slice().try_into().unwrap();
        let plaintext = random_bytes(bytes);
        let (mut ciphertext, mut tag) = (vec![0; bytes], [0; 16]);
        cipher().seal(&nonce, &[7; 40], &plaintext, &mut ciphertext, &mut tag);

        let (sealing, mut sealed, text) = (cipher(), vec![0; bytes], plaintext.clone());
        let left = left_by(secrets(), move || sealing.seal(&nonce, &[7; 40], &text, &mut sealed, &mut [0; 16]));
        assert!(left.is_empty(), "by sealing {bytes} bytes: {left:?}");

        let (opening, mut opened) = (cipher(), vec![0; bytes]);
        let left = left_by(secrets(), move || {
            opening.open(&nonce, &[7; 40], &ciphertext, &tag, &mut opened).unwrap();
            assert!(opened == plaintext);
        });
        assert!(left.is_empty(), "by opening {bytes} bytes: {left:?}");
    }
}

/// Else the test above could not fail.
#[test]
fn what_is_not_wiped_is_found() {
    let (key, nonce) = (random_bytes(32), random_bytes(24));
    let secrets = secrets(&key, &nonce);
    let masked: Vec<_> = key.iter().map(|byte| byte ^ MASK).collect();
    let left = left_by(secrets, move || {
        let key: [u8; 32] = black_box(std::array::from_fn(|at| masked[at] ^ MASK));
        black_box(std::mem::ManuallyDrop::new(aes::Aes256Enc::new(&key.into())));
    });
    assert_eq!(left, ["a round key of K"]);
}
