//! The vectors of the value format: written and opened byte for byte, and every change to them refused.

mod common;

use std::collections::BTreeMap;
use std::rc::Rc;

use envelope_core::cipher::suite::SealingKey;
use envelope_core::error::ValueError;
use envelope_core::format::{Envelope, Head, HeadError, Preamble};
use envelope_core::value::{DataKey, DerivedKeys};
use serde::Deserialize;

use common::{dek, open_with, random_bytes, seal_with, unhex, vectors};

#[test]
fn write() {
    let vectors = vectors();
    let nonce = unhex(&vectors.nonce).try_into().unwrap();
    for vector in &vectors.cases {
        let data_key =
            DataKey::generated(dek(&vectors.dek), vector.wrapped(), &vector.context(), &Rc::default()).unwrap();
        let value = seal_with(&data_key, vector.value_type(), &nonce, vector.aad().as_deref(), &vector.plaintext());
        assert_eq!(hex::encode(value), vector.value, "{}", vector.name);
    }
}

#[test]
fn open() {
    let vectors = vectors();
    assert!(vectors.cases.len() >= 12);
    for vector in &vectors.cases {
        let value = vector.value();
        assert_eq!(open_with(&vectors.dek, &value, vector.aad().as_deref()), Ok(vector.plaintext()), "{}", vector.name);
        let head = Envelope::parse(&value).unwrap().head;
        assert_eq!(hex::encode(head.commitment().0), vectors.commitment);
        assert_eq!(head.value_type, vector.value_type());
        assert_eq!(head.encryption_context().unwrap(), vector.context());
        assert_eq!(head.wrapped_keys().unwrap(), [vector.wrapped()]);
        assert_eq!(head.value_bytes(), value.len());
    }
}

/// tests/data/v1_negative.json, made by generate_negative.py beside it.
#[derive(Deserialize)]
struct Negative {
    name: String,
    value: String,
    aad: Option<String>,
    /// A name of the closed set, or none: then it opens to this plaintext.
    error: Option<String>,
    plaintext: Option<String>,
}

fn error_name(error: ValueError) -> &'static str {
    match error {
        ValueError::NotAnEnvelope => "NotAnEnvelope",
        ValueError::Truncated => "Truncated",
        ValueError::Malformed(_) => "Malformed",
        ValueError::UnsupportedVersion(_) => "UnsupportedVersion",
        ValueError::UnsupportedSuite(_) => "UnsupportedSuite",
        ValueError::UnsupportedReference => "UnsupportedReference",
        ValueError::UnsupportedProvider(_) => "UnsupportedProvider",
        ValueError::AuthenticationFailed => "AuthenticationFailed",
        ValueError::WrongType { .. } => "WrongType",
    }
}

#[test]
fn negative() {
    let vectors = vectors();
    let cases: Vec<Negative> = serde_json::from_str(include_str!("data/v1_negative.json")).unwrap();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        let aad = case.aad.as_deref().map(unhex);
        match open_with(&vectors.dek, &unhex(&case.value), aad.as_deref()) {
            Ok(plaintext) => {
                assert_eq!(
                    (None, Some(hex::encode(plaintext))),
                    (case.error.as_deref(), case.plaintext.clone()),
                    "{}",
                    case.name
                );
            }
            Err(error) => {
                assert_eq!(Some(error_name(error)), case.error.as_deref(), "{}", case.name);
                *seen.entry(error_name(error)).or_default() += 1;
            }
        }
    }
    assert_eq!(seen.len(), 8, "every error but WrongType, which is the caller's: {seen:?}");
}

#[test]
fn every_truncation() {
    let vectors = vectors();
    for vector in &vectors.cases {
        let value = vector.value();
        for length in 0..value.len() {
            let expected = match open_with(&vectors.dek, &value[..length], vector.aad().as_deref()) {
                Err(error) => error_name(error),
                Ok(_) => panic!("{} opens at {length} bytes", vector.name),
            };
            match length {
                0..2 => assert_eq!(expected, "NotAnEnvelope"),
                _ => assert!(
                    ["Truncated", "AuthenticationFailed"].contains(&expected),
                    "{} at {length}: {expected}",
                    vector.name
                ),
            }
        }
    }
}

#[test]
fn every_flipped_bit() {
    let vectors = vectors();
    for vector in vectors.cases.iter().filter(|vector| vector.plaintext.len() < 100) {
        let value = vector.value();
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(plaintext) = open_with(&vectors.dek, &flipped, vector.aad().as_deref()) {
                // Only the wrapped key is outside the associated data; these tests open with the data key itself. Against
                // a provider such a value fails too: tests/local_provider.rs.
                assert_eq!(plaintext, vector.plaintext(), "{}: bit {bit} gives a wrong plaintext", vector.name);
                let (head, changed) = (Envelope::parse(&value).unwrap().head, Envelope::parse(&flipped).unwrap().head);
                assert_eq!(head.header(), changed.header(), "{}: bit {bit} of the header", vector.name);
                assert_ne!(head.wrapped_keys(), changed.wrapped_keys(), "{}: bit {bit}", vector.name);
            }
        }
    }
}

#[test]
fn a_prefix_is_enough_for_the_head() {
    for vector in &vectors().cases {
        let value = vector.value();
        let mut prefix_bytes = 0;
        let head = loop {
            match Head::parse(&value[..prefix_bytes], value.len()) {
                Ok(head) => break head,
                Err(HeadError::NeedBytes(bytes)) => {
                    assert!(bytes > prefix_bytes && bytes <= value.len());
                    prefix_bytes = bytes;
                }
                Err(HeadError::Invalid(error)) => panic!("{}: {error}", vector.name),
            }
        };
        assert_eq!(prefix_bytes, value.len() - head.ciphertext_bytes - 16, "no more than the head");
        assert_eq!(head.dek_identity(), Envelope::parse(&value).unwrap().head.dek_identity());
    }
}

/// Whatever parses is written again as it was: there is one encoding.
#[test]
fn parse_then_write_is_the_same() {
    let values: Vec<_> = vectors().cases.iter().map(|vector| vector.value()).collect();
    let mut parsed = 0;
    for round in 0..20_000 {
        let mut value = values[round % values.len()].clone();
        let head_bytes = value.len().min(340);
        for change in random_bytes(3 * (round % 4)).chunks_exact(3) {
            let position = usize::from(u16::from_be_bytes([change[0], change[1]])) % head_bytes;
            value[position] = if change[2] < 128 { change[2] % 4 } else { change[2] };
        }
        let Ok(envelope) = Envelope::parse(&value) else { continue };
        let (Ok(context), Ok(wrapped_keys)) = (envelope.head.encryption_context(), envelope.head.wrapped_keys()) else {
            continue;
        };
        let preamble = Preamble::new(&envelope.head.commitment(), &context, &wrapped_keys).unwrap();
        assert_eq!(preamble.dek_identity(), envelope.head.dek_identity());
        parsed += 1;
    }
    assert!(parsed > 5_000, "only {parsed} values got past the parser");
}

#[test]
fn another_data_key_is_refused_before_anything_is_opened() {
    let vector = &vectors().cases[0];
    let value = vector.value();
    let head = Envelope::parse(&value).unwrap().head;
    let derived = DerivedKeys::of(dek(&"07".repeat(32)), &vector.context(), &Rc::default());
    let other = DataKey::unwrapped(derived, vector.wrapped(), vector.context(), &head);
    assert_eq!(other.err(), Some(ValueError::AuthenticationFailed));
}

#[test]
fn padding_is_removed() {
    let vectors = vectors();
    let padded = |plaintext: &[u8]| {
        let vector = &vectors.cases[0];
        let data_key =
            DataKey::generated(dek(&vectors.dek), vector.wrapped(), &vector.context(), &Rc::default()).unwrap();
        let mut value = seal_with(&data_key, vector.value_type(), &[7; 24], None, plaintext);
        value[5] |= 4;
        // The flag is authenticated: seal again with the header that has it.
        let header = Envelope::parse(&value).unwrap().head.header().to_vec();
        let body = value.len() - plaintext.len() - 16;
        let (ciphertext, tag) = value[body..].split_at_mut(plaintext.len());
        SealingKey::derive(dek(&vectors.dek), &Rc::default()).seal(&[7; 24], plaintext.len(), |_, nonce, key| {
            key.seal(nonce, &header, plaintext, ciphertext, tag);
        });
        open_with(&vectors.dek, &value, None)
    };
    assert_eq!(padded(b"abc\x80\0\0\0"), Ok(b"abc".to_vec()));
    assert_eq!(padded(b"\x80"), Ok(Vec::new()));
    assert_eq!(padded(b"abc\x80\x80"), Ok(b"abc\x80".to_vec()));
    for unpadded in [&b""[..], b"\0\0", b"abc", b"abc\x80\0\x01"] {
        assert_eq!(padded(unpadded), Err(ValueError::Malformed("padding")), "{unpadded:?}");
    }
}
