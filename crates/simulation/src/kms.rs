//! The simulated KMS: calls that end when the history says so, and what it has truly said.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use envelope_core::context::EncryptionContext;
use envelope_core::keys::{Dek, KeyId, Provider, WrappedKey};
use envelope_core::request::{
    Calls, ConsentAge, KmsError, KmsErrorKind, Lease, OpeningGrant, Operation, Reply, Request, SealingGrant,
};
use envelope_kms::{GeneratedKey, KeyProvider, UnwrappedKey};
use tokio::sync::oneshot;

use crate::clock::now;

/// The keys: single-Region ones, and a multi-Region key with a replica.
pub const KEYS: [&str; 4] = [
    "arn:aws:kms:us-west-2:111122223333:key/715c0818-5825-4245-a755-138a6d9a11e6",
    "arn:aws:kms:us-west-2:111122223333:key/00000000-5825-4245-a755-138a6d9a11e6",
    "arn:aws:kms:us-west-2:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
];

/// How KMS treats a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mood {
    Well,
    Down,
    Throttling,
    DenyingDecrypt,
    Denying,
    Disabled,
    NotFound,
    /// Decrypt answers with the plaintext of another data key.
    LyingAboutPlaintext,
    /// GenerateDataKey answers without a wrapped data key.
    EmptyBlob,
}

/// A data key in its wrapped form: its number and the index of its key.
pub fn number_of(wrapped_dek: &[u8]) -> Option<u64> {
    wrapped_dek.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

struct Call {
    end: oneshot::Sender<()>,
}

/// The truth.
#[derive(Default)]
pub struct State {
    pub moods: [Option<Mood>; KEYS.len()],
    waiting: Vec<Call>,
    last: u64,
    /// When KMS was asked for the data keys that it made, by number.
    pub made: HashMap<u64, Instant>,
    /// When KMS was last asked for a data key that it has then handed out, by number.
    pub consents: HashMap<u64, Instant>,
    pub calls: u64,
    pub refusals: u64,
}

/// The KMS. Clones are the same.
#[derive(Clone, Default)]
pub struct Kms(pub Rc<RefCell<State>>);

impl Kms {
    /// Ends one of the calls under way; whether there was one.
    pub fn end_call(&self, choose: impl FnOnce(usize) -> usize) -> bool {
        let mut state = self.0.borrow_mut();
        state.waiting.retain(|call| !call.end.is_closed());
        if state.waiting.is_empty() {
            return false;
        }
        let at = choose(state.waiting.len());
        let call = state.waiting.swap_remove(at);
        drop(state);
        let _ = call.end.send(());
        true
    }

    pub fn mood(&self, key: usize) -> Mood {
        self.0.borrow().moods[key].unwrap_or(Mood::Well)
    }

    async fn call(&self, operation: Operation, key_id: &str) -> Result<(usize, Mood, Instant), KmsError> {
        let asked = now();
        let (end, ended) = oneshot::channel();
        {
            let mut state = self.0.borrow_mut();
            state.calls += 1;
            state.waiting.push(Call { end });
        }
        let _ = ended.await;
        let key = KEYS.iter().position(|key| *key == key_id).expect("only these are named");
        let mood = self.mood(key);
        let kind = match (mood, operation) {
            (Mood::Down, _) => Some(KmsErrorKind::Unreachable("it is down".into())),
            (Mood::Throttling, _) => Some(KmsErrorKind::Throttled),
            (Mood::DenyingDecrypt, Operation::Decrypt) | (Mood::Denying, _) => Some(KmsErrorKind::AccessDenied),
            (Mood::Disabled, _) => Some(KmsErrorKind::KeyUnusable),
            (Mood::NotFound, _) => Some(KmsErrorKind::NotFound),
            _ => None,
        };
        match kind {
            None => Ok((key, mood, asked)),
            Some(kind) => {
                let error = KmsError::new(kind, operation, key_id);
                self.0.borrow_mut().refusals += u64::from(error.kind.is_refusal());
                Err(error)
            }
        }
    }

    /// What a session without a broker is answered: see `envelope_kms::Providers::answer`.
    pub async fn answer(&self, request: Request) -> Result<Reply, KmsError> {
        let consent = ConsentAge::JUST_GIVEN;
        let may_call = request.terms().is_none_or(|terms| terms.calls != Calls::None);
        match request {
            Request::SealingKey { key_id, .. } if !may_call => {
                Err(KmsError::no_call_left(Operation::GenerateDataKey, &key_id.to_string()))
            }
            Request::OpeningKey { wrapped, .. } if !may_call => {
                Err(KmsError::no_call_left(Operation::Decrypt, &wrapped.key_id))
            }
            Request::SealingKey { key_id, context, .. } | Request::ReplaceDek { key_id, context } => {
                let GeneratedKey { dek, wrapped } = self.generate_data_key(&key_id, &context).await?;
                let age = std::time::Duration::ZERO;
                Ok(Reply::Sealing(SealingGrant { dek, wrapped, age, lease: Lease::default(), consent }))
            }
            Request::OpeningKey { wrapped, context, .. } => {
                let UnwrappedKey { dek, key_id } = self.unwrap_key(&wrapped, &context).await?;
                Ok(Reply::Opening(OpeningGrant { dek, key_id, consent }))
            }
            Request::Rewrap { .. } => unreachable!("sessions of the simulation do not rewrap"),
        }
    }
}

fn dek(number: u64) -> Dek {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Dek::take_from(&mut bytes).expect("32 bytes")
}

impl KeyProvider for Kms {
    async fn generate_data_key(&self, key_id: &KeyId, _: &EncryptionContext) -> Result<GeneratedKey, KmsError> {
        let (key, mood, asked) = self.call(Operation::GenerateDataKey, &key_id.to_string()).await?;
        let mut state = self.0.borrow_mut();
        state.last += 1;
        let number = state.last;
        state.made.insert(number, asked);
        state.consents.insert(number, asked);
        let wrapped_dek = if mood == Mood::EmptyBlob { Vec::new() } else { number.to_be_bytes().to_vec() };
        let wrapped = WrappedKey { provider: Provider::AwsKms, key_id: KEYS[key].to_owned(), wrapped_dek };
        Ok(GeneratedKey { dek: dek(number), wrapped })
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, _: &EncryptionContext) -> Result<UnwrappedKey, KmsError> {
        let (_, mood, asked) = self.call(Operation::Decrypt, &wrapped.key_id).await?;
        let reject = || {
            let mut error = KmsError::new(KmsErrorKind::WrappedKeyRejected, Operation::Decrypt, &wrapped.key_id);
            error.metadata.code = Some("InvalidCiphertextException".into());
            error
        };
        let mut state = self.0.borrow_mut();
        // A forged one has a number that was never given out.
        let number = number_of(&wrapped.wrapped_dek).filter(|number| *number <= state.last).ok_or_else(reject)?;
        let lie = mood == Mood::LyingAboutPlaintext;
        let consent = state.consents.entry(number).or_insert(asked);
        *consent = asked.max(*consent);
        Ok(UnwrappedKey { dek: dek(if lie { number + 1_000_000_000 } else { number }), key_id: wrapped.key_id.clone() })
    }

    async fn rewrap_key(&self, _: &WrappedKey, _: &EncryptionContext, _: &KeyId) -> Result<WrappedKey, KmsError> {
        unreachable!("sessions of the simulation do not rewrap")
    }
}
