//! This backend's data keys, and when to ask KMS. The cache is borrowed to look up and to add, never while KMS is asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::{Found, OpeningKeys, SealingKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Head, NONCE_BYTES};
use envelope_core::keys::{KeyId, WrappedKey};
use envelope_core::kms::{GeneratedKey, KeyProvider, KmsError, KmsErrorKind, Operation, UnwrappedKey};
use envelope_core::random::Nonces;
use envelope_core::value::DataKey;
use pgrx::prelude::*;

use crate::error::Error;
use crate::{bridge, settings};

struct Session {
    /// The process that made it: its keys and nonces are for no other.
    process: i32,
    sealing: SealingKeys,
    opening: OpeningKeys,
    nonces: Nonces,
    allowed: AllowedKeys,
    allowed_generation: u64,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

impl Session {
    fn start(process: i32) -> Self {
        // SAFETY: the function stays in memory as long as the process.
        unsafe { pg_sys::on_proc_exit(Some(wipe_at_exit), pg_sys::Datum::null()) };
        Self {
            process,
            sealing: SealingKeys::new(),
            opening: OpeningKeys::new(),
            nonces: Nonces::new(),
            allowed: settings::allowed_keys(),
            allowed_generation: settings::allowed_keys_generation(),
        }
    }

    /// Checks a key against the list that is in force now.
    fn check_allowed(&mut self, key_id: &str) -> Result<(), Error> {
        let generation = settings::allowed_keys_generation();
        if self.allowed_generation != generation {
            self.allowed = settings::allowed_keys();
            self.allowed_generation = generation;
        }
        if self.allowed.allows(key_id) { Ok(()) } else { Err(Error::KeyNotAllowed(key_id.to_owned())) }
    }
}

fn with_session<T>(use_session: impl FnOnce(&mut Session) -> T) -> T {
    SESSION.with_borrow_mut(|session| {
        // SAFETY: reads a variable of the backend.
        let process = unsafe { pg_sys::MyProcPid };
        session.take_if(|session| session.process != process);
        use_session(session.get_or_insert_with(|| Session::start(process)))
    })
}

/// A random nonce.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn nonce() -> Result<[u8; NONCE_BYTES], Error> {
    with_session(|session| session.nonces.next_nonce()).map_err(|_| Error::NoRandomness)
}

/// The data key to seal `plaintext_bytes` bytes with, under the key that the statement names. The use is counted.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn sealing_key(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<DataKey>, Error> {
    let limits = settings::limits();
    let found = with_session(|session| {
        session.check_allowed(key_id)?;
        let found = session.sealing.find(key_id, context, plaintext_bytes, Instant::now(), &limits);
        if let Found::Current(data_key) | Found::Unconfirmed(data_key) = &found {
            session.check_allowed(data_key.key_id())?;
        }
        Ok::<_, Error>(found)
    })?;
    match found {
        Found::Current(data_key) => Ok(data_key),
        Found::Unconfirmed(data_key) => match confirm(&data_key, context) {
            Ok(()) => {
                with_session(|session| {
                    let now = Instant::now();
                    session.sealing.confirm(key_id, context, plaintext_bytes, now);
                    session.opening.insert(Rc::clone(&data_key), now, &limits);
                });
                Ok(data_key)
            }
            // Not this data key any more. A new one may be had: where only kms:GenerateDataKey is allowed, or when the
            // alias points to another key by now.
            Err(Error::Kms(error)) if is_refusal(&error.kind) => {
                with_session(|session| session.opening.remove(data_key.identity()));
                generate(key_id, context, plaintext_bytes)
            }
            Err(error) => Err(error),
        },
        Found::Nothing => generate(key_id, context, plaintext_bytes),
    }
}

/// Has a data key made, and makes it the current one.
fn generate(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<DataKey>, Error> {
    let parsed = KeyId::parse(key_id)?;
    let request_context = context.clone();
    let GeneratedKey { dek, wrapped } = bridge::call(settings::kms(), move |providers| async move {
        providers.generate_data_key(&parsed, &request_context).await
    })??;
    let too_large = || KmsErrorKind::UnexpectedAnswer("the wrapped data key is too large");
    let key_of_answer = wrapped.key_id.clone();
    let data_key = DataKey::generated(dek, wrapped, context)
        .ok_or_else(|| KmsError::new(too_large(), Operation::GenerateDataKey, &key_of_answer))?;
    let data_key = Rc::new(data_key);
    let limits = settings::limits();
    with_session(|session| {
        session.check_allowed(data_key.key_id())?;
        let now = Instant::now();
        session.sealing.insert(key_id, context, Rc::clone(&data_key), plaintext_bytes, now, &limits);
        session.opening.insert(Rc::clone(&data_key), now, &limits);
        Ok(data_key)
    })
}

/// Asks the provider whether a data key may still be used.
fn confirm(data_key: &DataKey, context: &EncryptionContext) -> Result<(), Error> {
    request_unwrap(data_key.wrapped().clone(), context.clone()).map(drop)
}

fn request_unwrap(wrapped: WrappedKey, context: EncryptionContext) -> Result<UnwrappedKey, Error> {
    let unwrapped =
        bridge::call(settings::kms(), move |providers| async move { providers.unwrap_key(&wrapped, &context).await })?;
    Ok(unwrapped?)
}

/// Whether the provider has answered, and the answer is no.
fn is_refusal(kind: &KmsErrorKind) -> bool {
    use KmsErrorKind::{AccessDenied, KeyUnusable, NotFound, WrappedKeyRejected};
    matches!(kind, AccessDenied | KeyUnusable | NotFound | WrappedKeyRejected)
}

/// The data key that opens a value.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn opening_key(head: &Head<'_>) -> Result<Rc<DataKey>, Error> {
    let limits = settings::limits();
    let cached = with_session(|session| {
        let Some(data_key) = session.opening.find(head.dek_identity(), Instant::now(), &limits) else {
            return Ok(None);
        };
        session.check_allowed(data_key.key_id())?;
        Ok::<_, Error>(Some(data_key))
    })?;
    if let Some(data_key) = cached {
        return Ok(data_key);
    }
    let context = head.encryption_context()?;
    let mut first_error = None;
    for wrapped in head.wrapped_keys()? {
        match unwrap(head, wrapped, &context) {
            Ok(data_key) => return Ok(data_key),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// Has the data key of a value unwrapped, and keeps it.
fn unwrap(head: &Head<'_>, wrapped: WrappedKey, context: &EncryptionContext) -> Result<Rc<DataKey>, Error> {
    with_session(|session| session.check_allowed(&wrapped.key_id))?;
    let UnwrappedKey { dek, key_id } = match request_unwrap(wrapped.clone(), context.clone()) {
        // One error for everything cryptographic.
        Err(Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. })) => {
            return Err(ValueError::AuthenticationFailed.into());
        }
        result => result?,
    };
    let data_key = Rc::new(DataKey::unwrapped(dek, WrappedKey { key_id, ..wrapped }, head)?);
    let limits = settings::limits();
    with_session(|session| {
        session.check_allowed(data_key.key_id())?;
        session.opening.insert(Rc::clone(&data_key), Instant::now(), &limits);
        Ok(data_key)
    })
}

/// Forgets all data keys, and says how many there were.
pub fn flush() -> usize {
    with_session(|session| {
        session.sealing.clear();
        session.opening.clear()
    })
}

/// Wipes what the backend kept secret.
#[pg_guard]
unsafe extern "C-unwind" fn wipe_at_exit(_code: i32, _argument: pg_sys::Datum) {
    drop(SESSION.take());
}
