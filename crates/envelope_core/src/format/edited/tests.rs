//! Every edit that SQL offers, on values of all shapes; and bytes that only look like it.

use super::*;
use crate::context::EncryptionContext;
use crate::format::ValueType;
use crate::format::wrapped_keys::WrappedKeys;
use crate::keys::{Dek, Provider};
use crate::value::DataKey;

const KMS_KEY: &str = "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6";

fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).expect("the operating system has random numbers");
    random
}

fn wrapped(key_id: &str) -> WrappedKey {
    let provider = if key_id.starts_with("local:") { Provider::Local } else { Provider::AwsKms };
    WrappedKey {
        provider,
        key_id: key_id.to_owned(),
        wrapped_dek: random(if provider == Provider::Local { 65 } else { 184 }),
    }
}

fn value_of(plaintext: &[u8], key_id: &str, context: &str) -> Vec<u8> {
    let context = EncryptionContext::from_json(context).expect("a context");
    let dek = Dek::take_from(&mut random(32)).expect("32 bytes");
    let data_key = DataKey::generated(dek, wrapped(key_id), &context, &std::rc::Rc::default()).expect("it fits");
    let mut value = vec![0; data_key.value_bytes(plaintext.len())];
    let nonce = random(NONCE_BYTES).try_into().expect("24 bytes");
    data_key.seal(ValueType::Bytea, &nonce, Some(b"row"), plaintext, &mut value);
    value
}

fn values() -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for plaintext in [&b""[..], b"x", &[0; 1_000], &[0xd8; 20_000]] {
        for key_id in [KMS_KEY, "local:dev"] {
            for context in ["{}", r#"{"table": "customers"}"#] {
                values.push(value_of(plaintext, key_id, context));
            }
        }
    }
    values
}

/// What the trigger asks about a new value of a column.
fn is_refused(new: &[u8], old: &[u8]) -> bool {
    let fingerprint = Fingerprint::of(&Envelope::parse(old).expect("a value"));
    let well_formed = well_formed(new).is_ok();
    is_edit_of(new, old)
        || contains_value(new, usize::from(well_formed))
        || is_cut_value(new)
        || fingerprint.is_of_edited(new)
}

#[test]
fn a_value_is_known_however_sql_writes_it() {
    for value in values() {
        let hex = value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let base64 = base64::engine::general_purpose::STANDARD.encode(&value);
        let escaped: String = value
            .iter()
            .map(|byte| match byte {
                b'\\' => r"\\".to_owned(),
                1..=127 => char::from(*byte).to_string(),
                other => format!("\\{other:03o}"),
            })
            .collect();
        for text in [&hex, &format!(r"\x{hex}"), &hex.to_uppercase(), &base64, &escaped] {
            assert!(is_text_of_value(text.as_bytes()), "{text}");
            assert!(!is_text_of_value(&text.as_bytes()[1..].repeat(2)), "the rest of it");
            assert!(!is_text_of_value(&text.as_bytes()[..40]), "no more than its beginning");
        }
        assert!(is_json_of_value(format!(r#""\\x{hex}""#).as_bytes()));
        assert!(is_json_of_value(format!(r#""{base64}""#).as_bytes()));
        assert!(!is_json_of_value(format!(r#"{{"a": "{base64}"}}"#).as_bytes()));
    }
}

#[test]
fn every_edit_is_known() {
    for old in values() {
        let other = value_of(b"another", "local:dev", "{}");
        let cases = [
            ("append", [&old[..], b"\x01"].concat()),
            ("prepend", [b"\0", &old[..]].concat()),
            ("append a value", [&old[..], &other].concat()),
            ("prepend a value", [&other[..], &old].concat()),
            ("append itself", [&old[..], &old].concat()),
            ("around it", [&random(100)[..], &old, &random(100)].concat()),
        ];
        for (name, edited) in cases {
            assert!(is_refused(&edited, &old), "{name} of {} bytes", old.len());
        }
        for at in 0..old.len().min(500) {
            let mut overwritten = old.clone();
            overwritten[at] ^= 1;
            assert!(is_refused(&overwritten, &old), "set_byte at {at} of {} bytes", old.len());
            for inserted in [1, 3, 20] {
                let edited = [&old[..at], &vec![0x55; inserted], &old[at..]].concat();
                assert!(is_refused(&edited, &old), "{inserted} bytes inserted at {at} of {}", old.len());
            }
            let removed = [&old[..at], &old[at + 1..]].concat();
            assert!(is_refused(&removed, &old), "a byte removed at {at} of {}", old.len());
            if at > 0 && at <= old.len() - SHORT_PROBE_BYTES {
                assert!(is_refused(&old[at..], &old), "cut in front at {at} of {}", old.len());
            }
            if at >= SHORT_PROBE_BYTES {
                assert!(is_refused(&old[..at], &old), "cut behind at {at} of {}", old.len());
            }
        }
        // The middle of what is random.
        let sealed = Envelope::parse(&old).expect("a value").head.wrapped_keys_end;
        for at in sealed..old.len() - 8 {
            assert!(is_refused(&old[at..at + 8], &old), "8 bytes at {at} of {}", old.len());
        }
    }
}

#[test]
fn what_is_no_edit_passes() {
    for old in values() {
        assert!(!is_refused(&old, &old), "itself");
        let other = value_of(b"another", KMS_KEY, "{}");
        assert!(!is_refused(&other, &old), "another value");
        // Rewrapped under another key, and under the same one again.
        for key_id in [KMS_KEY, "local:dev", "local:another"] {
            let wrapped_keys = WrappedKeys::write(&[wrapped(key_id)]).expect("it fits");
            let envelope = Envelope::parse(&old).expect("a value");
            let mut rewrapped = vec![0; envelope.rewrapped_bytes(&wrapped_keys)];
            envelope.write_rewrapped(&wrapped_keys, &mut rewrapped);
            assert!(!is_refused(&rewrapped, &old), "rewrapped under {key_id}");
        }
        for plaintext in [
            vec![],
            b"\xf6\x45\x01\x01".to_vec(),
            b"\xf6\x45\x01\x01\0".to_vec(),
            [&BEGINNING[..], &[0; 200]].concat(),
            [&BEGINNING[..], &[0; 20]].concat(),
            [&BEGINNING[..], b"hello, world"].concat(),
            [b"a file with ", &BEGINNING[..], b" in it"].concat(),
            BEGINNING.repeat(1_000),
            vec![0; 1_000],
            b"local:dev".to_vec(),
            b"{\"table\": \"customers\"}".to_vec(),
            KMS_KEY.as_bytes().to_vec(),
        ] {
            assert!(!is_refused(&plaintext, &old), "{plaintext:02x?}");
        }
    }
}

/// Bytes that begin as a value does, and go on at random.
#[test]
fn random_bytes_pass() {
    let old = value_of(b"plaintext", "local:dev", "{}");
    for bytes in 0..2_000 {
        // Type and flags of no value, and then what may come.
        let plaintext = [&BEGINNING[..], &[3], &random(bytes)].concat();
        assert!(!is_refused(&plaintext, &old));
        assert!(!is_refused(&random(bytes), &old));
    }
}

#[test]
fn texts_that_have_a_value() {
    for value in values() {
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let lines =
            |text: String| text.as_bytes().chunks(76).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
        let base64 = lines(base64::engine::general_purpose::STANDARD.encode(&value));
        let escaped: String = value
            .iter()
            .map(|byte| match byte {
                b'\\' => r"\\".to_owned(),
                b' '..=b'~' => char::from(*byte).to_string(),
                byte => format!("\\{byte:03o}"),
            })
            .collect();
        for text in [
            hex.to_uppercase(),
            format!("\\x{hex}"),
            format!("before {hex} and behind"),
            format!("{{\"photo\": \"{}\"}}", base64.replace('\n', "\\n")),
            base64,
            format!("x{escaped}y"),
            escaped.replace(r"\001", "\x01"),
        ] {
            assert!(text_contains_value(text.as_bytes()), "{text}");
        }
        assert!(!text_contains_value(&hex.as_bytes()[..100]), "the head is cut");
        assert!(!text_contains_value(&hex.as_bytes()[1..]));
    }
    for text in ["", "f6450101", "9kUBA", "9kUBAQ==", r"\366E\001\001", "f6450101 is the beginning", "f645010100zz"] {
        assert!(!text_contains_value(text.as_bytes()), "{text}");
    }
}

#[test]
fn a_fingerprint_is_of_one_value() {
    let (one, other) = (value_of(b"one", "local:dev", "{}"), value_of(b"other", "local:dev", "{}"));
    let fingerprint = Fingerprint::of(&Envelope::parse(&one).expect("a value"));
    assert!(fingerprint.is_of(&one) && !fingerprint.is_of(&other));
    assert!(
        !fingerprint.is_of_edited(&one) && !fingerprint.is_of_edited(&other) && !fingerprint.is_of_edited(b"plaintext")
    );
}
