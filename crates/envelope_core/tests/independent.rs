//! The whole suite again from another library, RustCrypto's where the core has aws-lc's, byte by byte from docs/FORMAT.md, and
//! nothing of the core crate's own. Both must agree on random inputs.

mod common;

use std::collections::BTreeMap;
use std::rc::Rc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use common::{open_with, random_bytes, seal_with};
use envelope_core::context::EncryptionContext;
use envelope_core::format::ValueType;
use envelope_core::keys::{Dek, Provider, WrappedKey};
use envelope_core::value::DataKey;
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

fn derive(dek: &[u8], label: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    let pseudorandom_key = Salt::new(HKDF_SHA256, b"").extract(dek);
    let info = [&b"envelope_pg/v1/\x01"[..], label];
    pseudorandom_key.expand(&info, HKDF_SHA256).unwrap().fill(&mut output).unwrap();
    output
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

struct Input {
    dek: Vec<u8>,
    nonce: Vec<u8>,
    value_type: u8,
    pairs: BTreeMap<String, String>,
    aad: Option<Vec<u8>>,
    wrapped_dek: Vec<u8>,
    plaintext: Vec<u8>,
}

impl Input {
    fn random(round: usize) -> Self {
        let [pairs, aad_bytes, kind] = random_bytes(3)[..] else { unreachable!() };
        let text = || hex::encode(random_bytes(usize::from(random_bytes(1)[0] % 20)));
        Self {
            dek: random_bytes(32),
            nonce: random_bytes(24),
            value_type: kind % 3,
            pairs: (0..pairs % 4).map(|_| (text(), text())).collect(),
            aad: (kind < 128).then(|| random_bytes(usize::from(aad_bytes))),
            wrapped_dek: random_bytes(1 + round % 300),
            plaintext: random_bytes(if round.is_multiple_of(50) { 70_000 } else { round * 7 % 2_000 }),
        }
    }

    /// docs/FORMAT.md, from top to bottom.
    fn value(&self) -> Vec<u8> {
        let flags = u8::from(self.aad.is_some());
        let mut context = Vec::new();
        if !self.pairs.is_empty() {
            context.extend((self.pairs.len() as u16).to_be_bytes());
            context.extend(
                self.pairs
                    .iter()
                    .flat_map(|(key, value)| [prefixed(key.as_bytes()), prefixed(value.as_bytes())].concat()),
            );
        }
        let mut header = vec![0xf6, 0x45, 1, 1, self.value_type, flags];
        header.extend(derive(&self.dek, b"commit"));
        header.extend(prefixed(&context));

        let stanza = [&b"\x0a\x01local:dev"[..], &self.wrapped_dek].concat();
        let wrapped = prefixed(&[&b"\x02"[..], &prefixed(&stanza)].concat());

        let associated_data = [&header[..], self.aad.as_deref().unwrap_or_default()].concat();
        let key = derive(&self.dek, b"key");
        let sealed = Xaes256Gcm::new(&key.into())
            .encrypt(self.nonce.as_slice().try_into().unwrap(), Payload { msg: &self.plaintext, aad: &associated_data })
            .unwrap();
        [header, wrapped, self.nonce.clone(), sealed].concat()
    }
}

#[test]
fn agrees_on_random_inputs() {
    for round in 0..500 {
        let input = Input::random(round);
        let context = EncryptionContext::from_pairs(&input.pairs).unwrap();
        let wrapped = WrappedKey {
            provider: Provider::Local,
            key_id: "local:dev".into(),
            wrapped_dek: input.wrapped_dek.clone(),
        };
        let dek = Dek::take_from(&mut input.dek.clone()).unwrap();
        let data_key = DataKey::generated(dek, wrapped, &context, &Rc::default()).unwrap();
        let value_type = [ValueType::Bytea, ValueType::Text, ValueType::Jsonb][usize::from(input.value_type)];
        let nonce = input.nonce.as_slice().try_into().unwrap();
        let value = seal_with(&data_key, value_type, &nonce, input.aad.as_deref(), &input.plaintext);

        assert!(value == input.value(), "they differ in round {round}");
        let opened = open_with(&hex::encode(&input.dek), &input.value(), input.aad.as_deref());
        assert!(opened.as_deref() == Ok(&input.plaintext), "round {round} does not open");
    }
}
