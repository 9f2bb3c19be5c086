//! What the tests share: the vectors, and calls that take plain bytes.
#![allow(dead_code, reason = "each test uses its part")]

use std::rc::Rc;

use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Envelope, ValueType};
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::value::{DataKey, DerivedKeys};
use serde::Deserialize;

/// tests/data/v1.json.
#[derive(Deserialize)]
pub struct Vectors {
    pub dek: String,
    pub nonce: String,
    pub commitment: String,
    pub cases: Vec<Vector>,
}

#[derive(Deserialize)]
pub struct Vector {
    pub name: String,
    pub plaintext: String,
    #[serde(rename = "type")]
    pub value_type: u8,
    pub key_id: String,
    pub provider: u8,
    pub encryption_context: serde_json::Value,
    pub aad: Option<String>,
    pub value: String,
}

impl Vector {
    pub fn value(&self) -> Vec<u8> {
        unhex(&self.value)
    }

    pub fn plaintext(&self) -> Vec<u8> {
        unhex(&self.plaintext)
    }

    pub fn aad(&self) -> Option<Vec<u8>> {
        self.aad.as_deref().map(unhex)
    }

    pub fn value_type(&self) -> ValueType {
        [ValueType::Bytea, ValueType::Text, ValueType::Jsonb][usize::from(self.value_type)]
    }

    pub fn context(&self) -> EncryptionContext {
        EncryptionContext::from_json(&self.encryption_context.to_string()).unwrap()
    }

    /// The wrapped key of the vectors is a stand-in.
    pub fn wrapped(&self) -> WrappedKey {
        let provider = Provider::from_byte(self.provider).unwrap();
        WrappedKey { provider, key_id: self.key_id.clone(), wrapped_dek: vec![0xab; 184] }
    }
}

pub fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../data/v1.json")).unwrap()
}

pub fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

pub fn dek(hex: &str) -> Dek {
    Dek::take_from(&mut unhex(hex)).unwrap()
}

/// Opens a value with a given data key, as if a provider had unwrapped it from each of the value's wrapped keys.
pub fn open_with(dek_hex: &str, value: &[u8], aad: Option<&[u8]>) -> Result<Vec<u8>, ValueError> {
    let envelope = Envelope::parse(value)?;
    let context = envelope.head.encryption_context()?;
    let wrapped = envelope.head.wrapped_keys()?.remove(0);
    let derived = DerivedKeys::of(dek(dek_hex), &context, &Rc::default());
    let data_key = DataKey::unwrapped(derived, wrapped, context, &envelope.head)?;
    let mut plaintext = vec![0x55; envelope.ciphertext.len()];
    let opened = data_key.open(&envelope, aad, &mut plaintext);
    if opened == Err(ValueError::AuthenticationFailed) {
        assert!(plaintext.iter().all(|byte| [0, 0x55].contains(byte)), "unauthenticated plaintext was left behind");
    }
    plaintext.truncate(opened?);
    Ok(plaintext)
}

/// Seals a value of a data key that begins a batch with it: the random bytes are then the nonce.
pub fn seal_with(
    data_key: &DataKey,
    value_type: ValueType,
    nonce: &[u8; 24],
    aad: Option<&[u8]>,
    plaintext: &[u8],
) -> Vec<u8> {
    let mut value = vec![0x55; data_key.value_bytes(plaintext.len())];
    data_key.seal(value_type, nonce, aad, plaintext, &mut value);
    value
}

pub fn random_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
