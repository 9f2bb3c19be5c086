//! What the core leaves of its keys in memory: a child process seals and opens, and then looks for them in all that it can
//! write, as the kernel sees it, so that no compiler removes what is looked for. While a data key is in use there is one K; when
//! it is dropped there is nothing.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/secrets.rs"]
mod secrets;

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::rc::Rc;
use std::{env, iter};

use common::{random_bytes, unhex};
use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::stack::wipe_stack;
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::value::DataKey;
use serde::{Deserialize, Serialize};

/// Every byte of what is looked for is stored so, or else the child would find its own copies.
const MASK: u8 = 0xa5;
/// What the child is told, as JSON.
const TASK: &str = "ENVELOPE_RESIDUE_TASK";

#[derive(Deserialize, Serialize)]
struct Task {
    masked_dek: String,
    nonce: String,
    plaintext_bytes: usize,
    secrets: Vec<Secret>,
}

/// 16 bytes, masked, or 32.
#[derive(Deserialize, Serialize)]
struct Secret {
    name: String,
    masked: String,
}

fn masked(bytes: &[u8]) -> String {
    hex::encode(bytes.iter().map(|byte| byte ^ MASK).collect::<Vec<_>>())
}

/// All that is secret about one message.
fn secrets(dek: &[u8], nonce: &[u8]) -> Vec<Secret> {
    let secrets = secrets::secrets(dek, nonce);
    secrets.into_iter().map(|(name, bytes)| Secret { name: name.to_owned(), masked: masked(&bytes) }).collect()
}

/// The names of the secrets that are in memory, each as often as it is there.
fn found(secrets: &[Secret]) -> Vec<&str> {
    let secrets: Vec<_> = secrets.iter().map(|secret| (&*secret.name, unhex(&secret.masked))).collect();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut piece = vec![0; 1 << 20];
    let own = piece.as_ptr().addr()..piece.as_ptr().addr() + piece.len();
    let mut found = Vec::new();
    for (start, end) in writable() {
        // Pieces that overlap by less than what is looked for, and are not where they are read to.
        for at in (start..end).step_by(piece.len() - 31) {
            let length = piece.len().min(end - at);
            if memory.read_exact_at(&mut piece[..length], at as u64).is_err() {
                continue;
            }
            for (name, masked) in &secrets {
                let whole = |offset: &usize| {
                    let address = at + offset;
                    !own.contains(&address)
                        && masked.iter().enumerate().all(|(byte, masked)| piece[offset + byte] ^ MASK == *masked)
                };
                let Some(last) = length.checked_sub(masked.len()) else { continue };
                let times = (0..=last).filter(whole).count();
                found.extend(iter::repeat_n(*name, times));
            }
        }
    }
    piece.fill(0);
    found.sort_unstable();
    found
}

fn writable() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let number = |hex| usize::from_str_radix(hex, 16).unwrap();
    maps.lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")))
        .map(|line| line.split_once(' ').unwrap().0.split_once('-').unwrap())
        .map(|(start, end)| (number(start), number(end)))
        .collect()
}

/// Without the names of the message key, which a batch and a reader keep, and of what AES-GCM leaves of a message.
fn without_message_key<'a>(found: &[&'a str]) -> Vec<&'a str> {
    let mut rest = found.to_vec();
    let message = ["a round key of the message key", "the hash key", "the mask of the tag", "the key stream"];
    rest.retain(|name| !message.contains(name));
    rest.dedup();
    rest
}

/// The child.
fn work(task: &Task) {
    let data_key = || {
        let mut bytes: Vec<_> = unhex(&task.masked_dek);
        bytes.iter_mut().for_each(|byte| *byte ^= MASK);
        let wrapped = WrappedKey { provider: Provider::Local, key_id: "local:dev".into(), wrapped_dek: vec![1; 65] };
        let dek = Dek::take_from(&mut bytes).unwrap();
        Box::new(DataKey::generated(dek, wrapped, &EncryptionContext::default(), &Rc::default()).unwrap())
    };
    assert_eq!(found(&task.secrets), Vec::<&str>::new(), "before there is a data key");
    let plaintext = vec![b'x'; task.plaintext_bytes];
    let random = unhex(&task.nonce).try_into().unwrap();

    let key = data_key();
    let one_k = ["K", "a round key of K"];
    // Fifteen round keys, the first two of which are K.
    let count = |found: &[&str], wanted| found.iter().filter(|name| **name == wanted).count();
    let k_copies = |found: &[&str]| (count(found, "K"), count(found, "a round key of K"));
    let derived = found(&task.secrets);
    assert_eq!((without_message_key(&derived), k_copies(&derived)), (one_k.to_vec(), (1, 15)), "with a data key");

    let mut value = vec![0; key.value_bytes(plaintext.len())];
    key.seal(ValueType::Text, &random, None, &plaintext, &mut value);
    let sealed = found(&task.secrets);
    assert_eq!((without_message_key(&sealed), k_copies(&sealed)), (one_k.to_vec(), (1, 15)), "after sealing");
    if env::var("OPENSSL_ia32cap").is_ok_and(|without| without.is_empty()) {
        assert!(sealed.contains(&"a round key of the message key"), "else this could not fail");
    }

    let (reader, mut opened) = (data_key(), vec![0; plaintext.len()]);
    for _ in 0..2 {
        reader.open(&Envelope::parse(&value).unwrap(), None, &mut opened).unwrap();
        assert!(opened == plaintext);
        assert_eq!(without_message_key(&found(&task.secrets)), one_k, "after opening");
    }

    value[20] ^= 1;
    assert!(key.open(&Envelope::parse(&value).unwrap(), None, &mut opened).is_err());
    drop((key, reader));
    wipe_stack();
    assert_eq!(found(&task.secrets), Vec::<&str>::new(), "after all data keys were dropped");
}

#[test]
fn keys_do_not_stay_in_memory() {
    if let Ok(task) = env::var(TASK) {
        return work(&serde_json::from_str(&task).unwrap());
    }
    // What aws-lc does with all that the processor has, without AVX-512 and VAES, without AVX, and without AES instructions.
    let without = ["", ":~0x3000021400010020", "~0x1000000000000000:~0x3000021400010020", "~0x200000200000000"];
    for (without, plaintext_bytes) in iter::zip(without.iter().cycle(), [0, 16, 100, 1_000, 5_000, 70_000, 16, 16]) {
        let (dek, nonce) = (random_bytes(32), random_bytes(24));
        let secrets = secrets(&dek, &nonce);
        let task = Task { masked_dek: masked(&dek), nonce: hex::encode(&nonce), plaintext_bytes, secrets };
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "keys_do_not_stay_in_memory", "--nocapture"])
            .env(TASK, serde_json::to_string(&task).unwrap())
            .env("OPENSSL_ia32cap", without)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{plaintext_bytes} bytes, processor without {without:?}: {output}");
    }
}

/// Else the test above could not fail.
#[test]
fn what_is_not_wiped_is_found() {
    let (dek, nonce) = (random_bytes(32), random_bytes(24));
    let secrets = secrets(&dek, &nonce);
    let left = black_box(dek);
    assert!(found(&secrets).contains(&"the data key"));
    drop(left);
}
