//! This backend's data keys, and when to ask KMS. The cache is borrowed to look up and to add, never while KMS is asked.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Instant;

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::{CachedKey, Consent, Limits, OpeningKeys, SealingKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Head, NONCE_BYTES};
use envelope_core::key_reference::is_same_key;
use envelope_core::keys::{KeyId, WrappedKey};
use envelope_core::kms::{GeneratedKey, KeyProvider, KmsError, KmsErrorKind, Operation, Providers, UnwrappedKey};
use envelope_core::random::Nonces;
use envelope_core::value::DataKey;
use pgrx::prelude::*;

use crate::error::Error;
use crate::refresh::{Answered, Refreshes};
use crate::{bridge, journal, settings, statement};

struct Session {
    /// The process that made it: its keys and nonces are for no other.
    process: i32,
    sealing: SealingKeys,
    opening: OpeningKeys,
    refreshes: Refreshes,
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
            refreshes: Refreshes::default(),
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
pub fn sealing_key(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<CachedKey>, Error> {
    settle_refreshes();
    let limits = settings::limits();
    let found = with_session(|session| {
        session.check_allowed(key_id)?;
        let found = session.sealing.find(key_id, context, plaintext_bytes, Instant::now(), &limits);
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok::<_, Error>(found)
    })?;
    if let Some(cached) = found {
        match obtain_consent(&cached, &limits) {
            Ok(()) => return Ok(cached),
            // Not this data key any more. A new one may be had: where only kms:GenerateDataKey is allowed, or when the
            // alias points to another key by now.
            Err(Error::Kms(error)) if error.kind.is_refusal() => {}
            Err(error) => return Err(error),
        }
    }
    match generate(key_id, context, plaintext_bytes) {
        // The one that was due to be replaced serves on, as an opening key would.
        Err(Error::Kms(error)) if error.kind.is_outage() => {
            let spent = with_session(|session| session.sealing.find_spent(key_id, context));
            let spent = spent.filter(|spent| spent.may_go_stale(Instant::now(), &limits)).ok_or(error)?;
            with_session(|session| session.check_allowed(spent.data_key().key_id()))?;
            journal::served_stale(spent.data_key().key_id());
            Ok(spent)
        }
        result => result,
    }
}

/// Has a data key made, and makes it the current one.
fn generate(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<CachedKey>, Error> {
    let parsed = KeyId::parse(key_id)?;
    let request_context = context.clone();
    let GeneratedKey { dek, wrapped } =
        ask(move |providers| async move { providers.generate_data_key(&parsed, &request_context).await })?;
    let too_large = || KmsErrorKind::UnexpectedAnswer("the wrapped data key is too large");
    let key_of_answer = wrapped.key_id.clone();
    let data_key = DataKey::generated(dek, wrapped, context)
        .ok_or_else(|| KmsError::new(too_large(), Operation::GenerateDataKey, &key_of_answer))?;
    let cached = keep(data_key)?;
    let limits = settings::limits();
    with_session(|session| {
        session.sealing.insert(key_id, context, Rc::clone(&cached), plaintext_bytes, Instant::now(), &limits);
    });
    Ok(cached)
}

/// The data key that opens a value.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn opening_key(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    settle_refreshes();
    let found = with_session(|session| {
        let found = session.opening.find(head.dek_identity());
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok::<_, Error>(found)
    })?;
    if let Some(cached) = found {
        return obtain_consent(&cached, &settings::limits()).map(|()| cached).map_err(one_message);
    }
    let context = head.encryption_context()?;
    let mut first_error = None;
    for wrapped in head.wrapped_keys()? {
        match unwrap(head, wrapped, &context) {
            Ok(cached) => return Ok(cached),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// Has the data key of a value unwrapped, and keeps it.
fn unwrap(head: &Head<'_>, wrapped: WrappedKey, context: &EncryptionContext) -> Result<Rc<CachedKey>, Error> {
    with_session(|session| session.check_allowed(&wrapped.key_id))?;
    let UnwrappedKey { dek, key_id } = ask_to_unwrap(wrapped.clone(), context.clone()).map_err(one_message)?;
    with_session(|session| session.check_allowed(&key_id))?;
    // It keeps the key id of the value: where a replica of a multi-Region key has helped out, the key's own region is asked
    // again next time.
    keep(DataKey::unwrapped(dek, wrapped, head)?)
}

/// One error for everything cryptographic.
fn one_message(error: Error) -> Error {
    match error {
        Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) => ValueError::AuthenticationFailed.into(),
        error => error,
    }
}

/// Keeps a data key that its provider has just handed out, if its key is allowed.
fn keep(data_key: DataKey) -> Result<Rc<CachedKey>, Error> {
    let limits = settings::limits();
    with_session(|session| {
        session.check_allowed(data_key.key_id())?;
        let now = Instant::now();
        let spread = session.nonces.next_nonce().map_err(|_| Error::NoRandomness)?[0];
        let cached = Rc::new(CachedKey::new(data_key, now, spread));
        session.opening.insert(Rc::clone(&cached), now, &limits);
        Ok(cached)
    })
}

/// Makes sure that the provider of a cached data key consents to its use, or cannot be asked.
fn obtain_consent(cached: &Rc<CachedKey>, limits: &Limits) -> Result<(), Error> {
    let consent = || cached.consent(Instant::now(), limits);
    match consent() {
        Consent::Fresh => return Ok(()),
        Consent::RefreshDue => {
            with_session(|session| session.refreshes.start(cached));
            return Ok(());
        }
        Consent::StaleRefreshDue => with_session(|session| session.refreshes.start(cached)),
        Consent::Stale => {}
        Consent::Expired => {
            let refresh = with_session(|session| session.refreshes.take(cached));
            match refresh {
                Some(refresh) => heed(refresh.wait())?,
                None => {
                    let (data_key, asked) = (cached.data_key(), Instant::now());
                    settle(cached, asked, ask_to_unwrap(data_key.wrapped().clone(), data_key.context().clone()))?;
                }
            }
            if matches!(consent(), Consent::Fresh | Consent::RefreshDue) {
                return Ok(());
            }
        }
    }
    journal::served_stale(cached.data_key().key_id());
    Ok(())
}

/// Acts on what a provider said about a cached data key: an error unless it may be used, fresh or stale.
fn settle(cached: &CachedKey, asked: Instant, answer: Result<UnwrappedKey, Error>) -> Result<(), Error> {
    // A session that was idle since may take up the answer much later than it came.
    let failed = Instant::now().min(asked + settings::kms().aws.timeout);
    match answer {
        Ok(_) => {
            cached.confirmed(asked);
            Ok(())
        }
        Err(Error::Kms(error)) if error.kind.is_outage() => {
            cached.out_of_reach(failed);
            if cached.may_go_stale(Instant::now(), &settings::limits()) { Ok(()) } else { Err(error.into()) }
        }
        Err(error) => {
            cached.refresh_failed(failed);
            if matches!(&error, Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. })) {
                forget(|data_key| data_key.identity() == cached.data_key().identity());
            }
            Err(error)
        }
    }
}

/// Drops the data keys of a key that its provider refuses: at once, whatever the data key that was asked for. Who may not
/// make data keys may still be allowed to unwrap them.
fn heed_refusal(error: &KmsError) {
    let is_about_the_key = match error.kind {
        KmsErrorKind::AccessDenied => error.operation == Operation::Decrypt,
        KmsErrorKind::KeyUnusable | KmsErrorKind::NotFound => true,
        _ => false,
    };
    if is_about_the_key && forget(|data_key| is_same_key(data_key.key_id(), &error.key_id)) > 0 {
        journal::refused(error);
    }
}

/// Drops data keys, and says how many there were for opening values.
fn forget(is_refused: impl Fn(&DataKey) -> bool) -> usize {
    with_session(|session| {
        session.sealing.remove_if(&is_refused);
        session.opening.remove_if(&is_refused)
    })
}

/// Acts on the background refreshes that have been answered. Whoever needs a data key that was refused asks again, and is
/// told.
fn settle_refreshes() {
    while let Some(answered) = with_session(|session| session.refreshes.take_answered()) {
        // It serves on until its time is up, if it still may.
        let _ = heed(answered);
    }
}

/// Acts on what a refresh came to: an error unless the data key may be used.
fn heed(Answered { cached, asked, answer }: Answered) -> Result<(), Error> {
    if let Err(Error::Kms(error)) = &answer {
        heed_refusal(error);
    }
    journal::write_events();
    settle(&cached, asked, answer)
}

fn ask_to_unwrap(wrapped: WrappedKey, context: EncryptionContext) -> Result<UnwrappedKey, Error> {
    ask(move |providers| async move { providers.unwrap_key(&wrapped, &context).await })
}

/// Asks a provider, and waits for the answer.
fn ask<T, F>(request: impl FnOnce(Rc<Providers>) -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, KmsError>> + 'static,
{
    statement::count_kms_call()?;
    let answer = bridge::call(settings::kms(), request);
    journal::write_events();
    answer?.map_err(|error| {
        if error.breaker_was_open {
            statement::uncount_kms_call();
        }
        heed_refusal(&error);
        error.into()
    })
}

/// Forgets all data keys, and says how many there were.
pub fn flush() -> usize {
    with_session(|session| {
        session.refreshes.cancel();
        session.sealing.clear();
        session.opening.clear()
    })
}

/// Wipes what the backend kept secret.
#[pg_guard]
unsafe extern "C-unwind" fn wipe_at_exit(_code: i32, _argument: pg_sys::Datum) {
    drop(SESSION.take());
}
