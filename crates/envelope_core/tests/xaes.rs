//! XAES-256-GCM: the vectors of C2SP, and against RustCrypto's implementation.

mod common;

use envelope_core::cipher::xaes::{self, Xaes256Gcm};

use common::{random_bytes, unhex};
use serde::Deserialize;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Vector>,
    accumulated: Accumulated,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    key: String,
    nonce: String,
    plaintext: String,
    aad: String,
    ciphertext: String,
    tag: String,
}

#[derive(Deserialize)]
struct Accumulated {
    digests: Vec<Digest>,
}

#[derive(Deserialize)]
struct Digest {
    iterations: usize,
    digest: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("data/xaes_256_gcm.json")).unwrap()
}

fn seal(key: &[u8], nonce: &[u8], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; plaintext.len() + 16];
    let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
    let (prefix, nonce) = xaes::split(nonce.try_into().unwrap());
    Xaes256Gcm::new(key.try_into().unwrap()).message_key(prefix).seal(nonce, aad, plaintext, ciphertext, tag);
    sealed
}

#[test]
fn c2sp() {
    let cases = vectors().cases;
    assert_eq!(cases.len(), 2);
    for case in cases {
        let [key, nonce, plaintext, aad] = [&case.key, &case.nonce, &case.plaintext, &case.aad].map(|hex| unhex(hex));
        let sealed = seal(&key, &nonce, &aad, &plaintext);
        assert_eq!(hex::encode(&sealed), case.ciphertext.clone() + &case.tag, "{}", case.name);

        let (ciphertext, tag) = sealed.split_at(plaintext.len());
        let mut opened = vec![0; plaintext.len()];
        let nonce = nonce.try_into().unwrap();
        let (prefix, nonce) = xaes::split(&nonce);
        let key = Xaes256Gcm::new(&key.try_into().unwrap()).message_key(prefix);
        key.open(nonce, &aad, ciphertext, tag.try_into().unwrap(), &mut opened).unwrap();
        assert_eq!(opened, plaintext, "{}", case.name);
    }
}

#[test]
fn c2sp_accumulated() {
    let digests = vectors().accumulated.digests;
    let expected = digests.iter().find(|digest| digest.iterations == 10_000).unwrap();
    let mut stream = Shake128::default().finalize_xof();
    let mut read = |length: usize| {
        let mut bytes = vec![0; length];
        stream.read(&mut bytes);
        bytes
    };
    let mut accumulated = Shake128::default();
    for _ in 0..expected.iterations {
        let (key, nonce) = (read(32), read(24));
        let length = read(1)[0].into();
        let plaintext = read(length);
        let length = read(1)[0].into();
        let aad = read(length);
        accumulated.update(&seal(&key, &nonce, &aad, &plaintext));
    }
    let mut digest = [0; 32];
    accumulated.finalize_xof().read(&mut digest);
    assert_eq!(hex::encode(digest), expected.digest);
}

#[test]
fn agrees_with_rustcrypto() {
    for length in (0..300).chain([1_023, 1_024, 4_096, 65_536, 1_000_003]) {
        let (key, nonce, plaintext) = (random_bytes(32), random_bytes(24), random_bytes(length));
        let aad = random_bytes(length % 97);
        let other = xaes_256_gcm::Xaes256Gcm::new(key.as_slice().try_into().unwrap());
        let payload = Payload { msg: &plaintext, aad: &aad };
        let sealed = other.encrypt(nonce.as_slice().try_into().unwrap(), payload).unwrap();
        assert!(seal(&key, &nonce, &aad, &plaintext) == sealed, "they differ at {length} bytes");
    }
}
