//! What a value costs without PostgreSQL: seal, open, parse, find its data key, draw a nonce.

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use envelope_core::cache::bounded::Bounds;
use envelope_core::cache::{CachedKey, Limits, NewCurrent, OpeningKeys, SealingKeys};
use envelope_core::cipher::random::Nonces;
use envelope_core::cipher::xaes::{self, Xaes256Gcm};
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, NONCE_BYTES, ValueType};
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::request::Lease;
use envelope_core::value::DataKey;

const KEY_ID: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";
const SIZES: [usize; 4] = [16, 1 << 10, 64 << 10, 1 << 20];

fn data_key(number: u8) -> DataKey {
    let wrapped = WrappedKey { provider: Provider::AwsKms, key_id: KEY_ID.into(), wrapped_dek: vec![number; 184] };
    let dek = Dek::take_from(&mut [number; 32]).expect("32 bytes");
    DataKey::generated(dek, wrapped, &EncryptionContext::default(), &Rc::default()).expect("it fits")
}

fn sealed(key: &DataKey, plaintext: &[u8], aad: Option<&[u8]>) -> Vec<u8> {
    let mut value = vec![0; key.value_bytes(plaintext.len())];
    key.seal(ValueType::Text, &[7; 24], aad, plaintext, &mut value);
    value
}

fn seal_and_open(criterion: &mut Criterion) {
    let key = data_key(1);
    for (name, aad) in [("", None), (" with aad", Some(&b"patient.diagnosis:1"[..]))] {
        let mut group = criterion.benchmark_group(format!("seal{name}"));
        for bytes in SIZES {
            let plaintext = vec![b'x'; bytes];
            let mut value = vec![0; key.value_bytes(bytes)];
            let mut nonces = Nonces::new();
            group.throughput(Throughput::Bytes(bytes as u64)).bench_function(
                BenchmarkId::from_parameter(bytes),
                |bencher| {
                    bencher.iter(|| {
                        let mut random = [0; NONCE_BYTES];
                        nonces.draw(0, &mut random).expect("the kernel has randomness");
                        key.seal(ValueType::Text, &random, aad, black_box(&plaintext), &mut value);
                    });
                },
            );
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("open{name}"));
        for bytes in SIZES {
            let value = sealed(&key, &vec![b'x'; bytes], aad);
            let mut plaintext = vec![0; bytes];
            group.throughput(Throughput::Bytes(bytes as u64)).bench_function(
                BenchmarkId::from_parameter(bytes),
                |bencher| {
                    bencher.iter(|| {
                        let envelope = Envelope::parse(black_box(&value)).expect("a value");
                        key.open(&envelope, aad, &mut plaintext).expect("it opens")
                    });
                },
            );
        }
        group.finish();
    }
}

/// The cipher: with the message key of the value before, with one that has to be derived, and another library's.
fn cipher(criterion: &mut Criterion) {
    let (key, header) = ([1; 32], [3; 40]);
    let (ours, theirs) = (Xaes256Gcm::new(&key), xaes_256_gcm::Xaes256Gcm::new(&key.into()));
    for bytes in SIZES {
        let plaintext = vec![b'x'; bytes];
        let (mut ciphertext, mut tag) = (vec![0; bytes], [0; 16]);
        let mut nonces = (0_u8..=255).cycle().map(|number| [number; 24]);
        let mut next = || nonces.next().expect("it cycles");
        let message_key = ours.message_key(&[0; 12]);
        criterion.bench_function(&format!("cipher/kept message key/{bytes}"), |bencher| {
            bencher.iter(|| message_key.seal(xaes::split(&next()).1, &header, &plaintext, &mut ciphertext, &mut tag));
        });
        criterion.bench_function(&format!("cipher/new message key/{bytes}"), |bencher| {
            bencher.iter(|| {
                let nonce = next();
                let (prefix, nonce) = xaes::split(&nonce);
                ours.message_key(prefix).seal(nonce, &header, &plaintext, &mut ciphertext, &mut tag);
            });
        });
        criterion.bench_function(&format!("cipher/RustCrypto/{bytes}"), |bencher| {
            bencher.iter(|| {
                let buffer = InOutBuf::new(&plaintext, &mut ciphertext).expect("as long");
                theirs.encrypt_inout_detached((&next()).into(), &header, buffer)
            });
        });
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
        criterion.bench_function(&format!("cipher/AES-256-GCM of aws-lc/{bytes}"), |bencher| {
            bencher.iter(|| {
                let nonce = aead::Nonce::assume_unique_for_key(*xaes::split(&next()).1);
                key.seal_out_of_place_scatter(nonce, Aad::from(&header), &plaintext, &mut ciphertext, &[], &mut tag)
            });
        });
    }
}

fn parse(criterion: &mut Criterion) {
    let value = sealed(&data_key(1), b"a short text", None);
    criterion.bench_function("parse", |bencher| bencher.iter(|| Envelope::parse(black_box(&value)).is_ok()));
    let envelope = Envelope::parse(&value).expect("a value");
    criterion.bench_function("key id", |bencher| bencher.iter(|| black_box(&envelope).head.key_id()));
}

fn nonce(criterion: &mut Criterion) {
    let mut nonces = Nonces::new();
    criterion.bench_function("nonce", |bencher| {
        let mut random = [0; NONCE_BYTES];
        bencher.iter(|| nonces.draw(0, &mut random))
    });
}

fn find(criterion: &mut Criterion) {
    let now = Instant::now();
    let limits = Limits {
        bounds: Bounds { entries: 1_024, bytes: usize::MAX },
        ttl: Duration::from_secs(900),
        stale_if_unreachable: Duration::ZERO,
        max_age: Duration::from_secs(86_400),
        max_uses: None,
        max_bytes: None,
    };
    let (mut opening, mut sealing) = (OpeningKeys::default(), SealingKeys::default());
    let context = EncryptionContext::default();
    let keys: Vec<_> = (0..100).map(|number| Rc::new(CachedKey::new(data_key(number), now, 0))).collect();
    for key in &keys {
        opening.insert(Rc::clone(key), now, &limits);
    }
    let new = NewCurrent {
        cached: Rc::clone(&keys[0]),
        made: now,
        lease: Lease::default(),
        plaintext_bytes: 16,
        allowed_by: None,
    };
    sealing.insert(KEY_ID, &context, new, now, &limits);
    let last = keys[0].data_key().identity();
    criterion.bench_function("find/opening key, the same again", |bencher| {
        bencher.iter(|| opening.find(black_box(last)).is_some())
    });
    let mut number = 0;
    criterion.bench_function("find/opening key, 100 in turn", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % keys.len();
            opening.find(black_box(keys[number].data_key().identity())).is_some()
        });
    });
    criterion.bench_function("find/sealing key", |bencher| {
        bencher.iter(|| sealing.find(black_box(KEY_ID), &context, 16, now, &limits).is_some());
    });
}

criterion_group!(core, seal_and_open, cipher, parse, nonce, find);
criterion_main!(core);
