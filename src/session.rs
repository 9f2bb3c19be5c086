//! This backend's data keys, and when to ask KMS. The cache is borrowed to look up and to add, never while KMS is asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::broker::protocol::Call as BrokerCall;
use envelope_core::cache::{CachedKey, Consent, Limits, NewCurrent, OpeningKeys, SealingKeys};
use envelope_core::context::EncryptionContext;
use envelope_core::error::ValueError;
use envelope_core::format::{Head, NONCE_BYTES};
use envelope_core::key_reference::is_same_key;
use envelope_core::keys::{Commitment, KeyId, WrappedKey};
use envelope_core::kms::request::{Calls, ConsentAge, OpeningGrant, SealingGrant, SealingLimits, Terms};
use envelope_core::kms::{KmsError, KmsErrorKind, Operation, Reply, Request};
use envelope_core::random::Nonces;
use envelope_core::value::DataKey;
use pgrx::prelude::*;

use crate::error::Error;
use crate::refresh::{Answered, Refresh, Refreshes};
use crate::shared::Seen;
use crate::{bridge, broker, clock, journal, kms, settings, shared, statement};

/// When something was asked for, and what had been flushed or replaced by then.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    seen: Option<Seen>,
}

impl Asked {
    fn flushes(&self) -> Option<u64> {
        self.seen.map(|seen| seen.flushes)
    }
}

struct Session {
    /// The process that made it: its keys and nonces are for no other.
    process: i32,
    sealing: SealingKeys,
    opening: OpeningKeys,
    refreshes: Refreshes,
    nonces: Nonces,
    allowed: AllowedKeys,
    allowed_generation: u64,
    /// The flushes and replacements of data keys, by whatever session, that this one has heeded. `None`: it cannot see them.
    seen: Option<Seen>,
    /// When it last dropped its data keys because of that.
    blind: Option<Instant>,
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
            seen: shared::seen(),
            blind: None,
        }
    }

    /// Drops what another session has flushed or replaced.
    fn heed_shared(&mut self) {
        let now = shared::seen();
        match (self.seen, now) {
            (_, None) => self.keep_little(),
            (seen, now) if seen == now => {}
            (Some(seen), Some(now)) if seen.flushes == now.flushes => self.sealing.clear(),
            (_, Some(_)) => drop(self.flush()),
        }
        self.seen = now;
    }

    /// Others may have flushed, which cannot be seen: no data key is kept for long.
    fn keep_little(&mut self) {
        if self.blind.is_none_or(|since| since.elapsed() >= shared::BLIND_TIME) {
            self.flush();
            self.blind = Some(Instant::now());
        }
    }

    fn find_with<T>(&mut self, find: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.heed_shared();
        find(self)
    }

    fn asking(&mut self) -> Asked {
        self.heed_shared();
        Asked { at: Instant::now(), seen: self.seen }
    }

    fn flush(&mut self) -> usize {
        self.refreshes.cancel();
        self.sealing.clear();
        self.opening.clear()
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
        match session {
            Some(session) if session.process == process => use_session(session),
            _ => use_session(session.insert(Session::start(process))),
        }
    })
}

/// Checks a key against the list that is in force now.
///
/// # Errors
/// [`Error::KeyNotAllowed`].
pub fn check_allowed(key_id: &str) -> Result<(), Error> {
    with_session(|session| session.check_allowed(key_id))
}

/// What seals a value.
pub struct Sealing {
    /// The data key.
    pub cached: Rc<CachedKey>,
    /// A random nonce, for this value only.
    pub nonce: [u8; NONCE_BYTES],
}

/// The data key to seal `plaintext_bytes` bytes with, under the key that the statement names. The use is counted.
///
/// # Errors
/// Whatever keeps it from being had; [`Error::NoRandomness`].
pub fn sealing(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Sealing, Error> {
    let (now, limits) = (clock::now(), settings::limits());
    let (found, nonce) = look_up(|session| {
        session.check_allowed(key_id)?;
        let found = session.sealing.find(key_id, context, plaintext_bytes, now, &limits);
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok((found, session.nonces.next_nonce().map_err(|_| Error::NoRandomness)?))
    })?;
    let cached = sealing_key(found, key_id, context, plaintext_bytes, now, &limits)?;
    Ok(Sealing { cached, nonce })
}

/// The data key that was found, if its provider consents; else another one.
fn sealing_key(
    found: Option<Rc<CachedKey>>,
    key_id: &str,
    context: &EncryptionContext,
    plaintext_bytes: usize,
    now: Instant,
    limits: &Limits,
) -> Result<Rc<CachedKey>, Error> {
    if let Some(cached) = found {
        match obtain_consent(&cached, now, limits) {
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
            let spent = spent.filter(|spent| spent.may_go_stale(Instant::now(), limits)).ok_or(error)?;
            check_allowed(spent.data_key().key_id())?;
            served_stale(Operation::GenerateDataKey, &spent);
            Ok(spent)
        }
        result => result,
    }
}

/// Asks for the current data key of all sessions, or without a broker has one made, and makes it the session's.
fn generate(key_id: &str, context: &EncryptionContext, plaintext_bytes: usize) -> Result<Rc<CachedKey>, Error> {
    let limits = settings::limits();
    let request = Request::SealingKey {
        key_id: KeyId::parse(key_id)?,
        context: context.clone(),
        terms: terms(&limits, limits.ttl),
        limits: SealingLimits {
            max_age: limits.max_age,
            max_uses: limits.max_uses,
            max_bytes: limits.max_bytes,
            wanted_bytes: plaintext_bytes as u64,
        },
    };
    let asked = with_session(Session::asking);
    let SealingGrant { dek, wrapped, age, lease, consent } = match ask(request)? {
        Reply::Sealing(grant) => grant,
        Reply::Opening(_) | Reply::Rewrapped(_) => unreachable!("the reply is to this request"),
    };
    let key_of_answer = wrapped.key_id.clone();
    let too_large = "the wrapped data key is too large";
    let data_key = DataKey::generated(dek, wrapped, context)
        .ok_or_else(|| KmsError::unexpected(too_large, Operation::GenerateDataKey, &key_of_answer))?;
    let cached = keep(data_key, consent, asked)?;
    let now = Instant::now();
    let made = asked.at.checked_sub(age).unwrap_or(asked.at);
    with_session(|session| {
        if session.seen == asked.seen {
            let new = NewCurrent { cached: Rc::clone(&cached), made, lease, plaintext_bytes };
            session.sealing.insert(key_id, context, new, now, &limits);
            cached.count_use();
        }
    });
    Ok(cached)
}

/// Replaces the current data key of a key and an encryption context, for all sessions, and returns the new one. Without a
/// context, those of all contexts are replaced when they are next needed: KMS may want a context for each data key.
///
/// # Errors
/// Whatever keeps it from being made: then the one before stays.
pub fn rotate_dek(key_id: &str, context: Option<&EncryptionContext>) -> Result<Option<Rc<CachedKey>>, Error> {
    check_allowed(key_id)?;
    // Before KMS is asked for anything.
    shared::check().map_err(Error::Shared)?;
    let key = KeyId::parse(key_id)?;
    // Also if this session does without it: others do not.
    let told = match context {
        Some(context) => replace_in_broker(key, context),
        None => broker::call_running(&BrokerCall::Retire(key)).map(drop),
    };
    match told {
        // It finds out when it is well again.
        Err(Error::Broker(_)) => {
            shared::retire().map_err(Error::Shared)?;
            shared::avoid_broker();
        }
        told => told?,
    }
    shared::rotate().map_err(Error::Shared)?;
    // The broker's new one; without a broker, this session's own.
    context.map(|context| generate(key_id, context, 0)).transpose()
}

/// Has the broker, if one runs, make a new current data key.
fn replace_in_broker(key_id: KeyId, context: &EncryptionContext) -> Result<(), Error> {
    if statement::kms_calls_allowed() == Calls::None {
        return Err(statement::too_many_kms_calls());
    }
    statement::count_kms_call();
    match broker::ask_running(Request::RotateDek { key_id, context: context.clone() }).transpose() {
        Some(reply @ (Ok(_) | Err(Error::Kms(_)))) => heed_reply(context, reply).map(drop),
        // No call was made.
        other => {
            statement::uncount_kms_call();
            other.transpose().map(drop)
        }
    }
}

/// How old a provider's consent may be that another session has obtained.
fn terms(limits: &Limits, fresh_for: Duration) -> Terms {
    let stale_for = limits.ttl.saturating_add(limits.stale_if_unreachable);
    Terms { fresh_for, stale_for, calls: statement::kms_calls_allowed() }
}

/// The data key that opens a value.
///
/// # Errors
/// Whatever keeps it from being had.
pub fn opening_key(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    let found = look_up(|session| {
        let found = session.opening.find(head.dek_identity());
        if let Some(cached) = &found {
            session.check_allowed(cached.data_key().key_id())?;
        }
        Ok(found)
    })?;
    match found {
        Some(cached) => {
            obtain_consent(&cached, clock::now(), &settings::limits()).map_err(one_message)?;
            Ok(cached)
        }
        None => unwrap_for(head),
    }
}

/// Has the data key of a value unwrapped: by the first of its wrapped keys that can be.
fn unwrap_for(head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
    let context = head.encryption_context()?;
    let mut first_error = None;
    for wrapped in head.wrapped_keys()? {
        match Unwrapping::of(head, wrapped, &context).and_then(|unwrapping| unwrapping.wait(head)) {
            Ok(cached) => {
                cached.count_use();
                return Ok(cached);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("a value has one wrapped key at least"))
}

/// A data key that is being unwrapped. Dropping it gives that up.
pub struct Unwrapping {
    wrapped: WrappedKey,
    asked: Asked,
    /// The request.
    pub pending: kms::Pending,
}

impl Unwrapping {
    /// Starts to have the data key of a value unwrapped: the first of its wrapped keys.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for.
    pub fn start(head: &Head<'_>) -> Result<Self, Error> {
        Self::of(head, head.wrapped_keys()?.swap_remove(0), &head.encryption_context()?)
    }

    /// As [`Self::start`], with this one of the value's wrapped keys.
    fn of(head: &Head<'_>, wrapped: WrappedKey, context: &EncryptionContext) -> Result<Self, Error> {
        check_allowed(&wrapped.key_id)?;
        let asked = with_session(Session::asking);
        let ttl = settings::limits().ttl;
        let pending = start(unwrap_request(wrapped.clone(), context.clone(), head.commitment(), ttl))?;
        Ok(Self { wrapped, asked, pending })
    }

    /// Keeps the data key, whose request has been answered.
    ///
    /// # Errors
    /// Why it could not be unwrapped.
    pub fn finish(self, head: &Head<'_>, reply: Result<Reply, Error>) -> Result<Rc<CachedKey>, Error> {
        let OpeningGrant { dek, key_id, consent } =
            opening_grant(heed_reply(self.pending.context(), reply)).map_err(one_message)?;
        check_allowed(&key_id)?;
        // It keeps the key id of the value: where a replica of a multi-Region key has helped out, the key's own region is
        // asked again next time.
        keep(DataKey::unwrapped(dek, self.wrapped, head)?, consent, self.asked)
    }

    /// Waits for the answer, and keeps the data key.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn wait(mut self, head: &Head<'_>) -> Result<Rc<CachedKey>, Error> {
        let reply = kms::wait(&mut self.pending);
        self.finish(head, reply)
    }
}

/// Whether the session has the data key of a value, and may use it without asking.
pub fn is_warm(head: &Head<'_>) -> bool {
    with_session(|session| {
        session.heed_shared();
        let found = session.opening.find(head.dek_identity());
        let consent = found.map(|cached| cached.consent(Instant::now(), &settings::limits()));
        consent.is_some_and(|consent| consent != Consent::Expired)
    })
}

/// Calls `read` with the data keys of the session: the key id that statements name if it seals new values, and the data key.
pub fn for_each_cached(mut read: impl FnMut(Option<&str>, &CachedKey)) {
    with_session(|session| {
        session.heed_shared();
        session.sealing.iter().for_each(|(key_id, cached)| read(Some(key_id), cached));
        session.opening.iter().for_each(|cached| read(None, cached));
    });
}

/// One error for everything cryptographic.
pub fn one_message(error: Error) -> Error {
    match error {
        Error::Kms(KmsError { kind: KmsErrorKind::WrappedKeyRejected, .. }) => ValueError::AuthenticationFailed.into(),
        error => error,
    }
}

/// Keeps a data key that was just handed out, if its key is allowed. One that was asked for before a flush is good for the
/// value at hand only.
fn keep(data_key: DataKey, consent: ConsentAge, asked: Asked) -> Result<Rc<CachedKey>, Error> {
    let limits = settings::limits();
    let cached = with_session(|session| {
        session.check_allowed(data_key.key_id())?;
        let now = Instant::now();
        let spread = session.nonces.next_nonce().map_err(|_| Error::NoRandomness)?[0];
        let cached = Rc::new(CachedKey::new(data_key, consent.given_at(asked.at), spread));
        if consent.is_stale {
            cached.out_of_reach(now);
        }
        session.heed_shared();
        if session.seen.map(|seen| seen.flushes) == asked.flushes() {
            session.opening.insert(Rc::clone(&cached), now, &limits);
        }
        Ok::<_, Error>(cached)
    })?;
    if consent.is_stale {
        journal::served_stale(cached.data_key().key_id());
    }
    Ok(cached)
}

/// Makes sure that the provider of a cached data key consents to its use, or cannot be asked.
fn obtain_consent(cached: &Rc<CachedKey>, now: Instant, limits: &Limits) -> Result<(), Error> {
    match cached.consent(now, limits) {
        Consent::Fresh => return Ok(()),
        Consent::RefreshDue => {
            start_refresh(cached);
            return Ok(());
        }
        Consent::StaleRefreshDue => start_refresh(cached),
        Consent::Stale => {}
        Consent::Expired => {
            let refresh = with_session(|session| session.refreshes.take(cached));
            match refresh {
                Some(refresh) => heed(refresh.wait())?,
                None => {
                    let (data_key, asked) = (cached.data_key(), Instant::now());
                    let (wrapped, context) = (data_key.wrapped().clone(), data_key.context().clone());
                    let request = unwrap_request(wrapped, context, *data_key.commitment(), limits.ttl);
                    settle(cached, asked, opening_grant(ask(request)))?;
                }
            }
            if matches!(cached.consent(Instant::now(), limits), Consent::Fresh | Consent::RefreshDue) {
                return Ok(());
            }
            served_stale(Operation::Decrypt, cached);
            return Ok(());
        }
    }
    journal::served_stale(cached.data_key().key_id());
    Ok(())
}

/// Counts what the session has decided to use past its time, and says so. The broker counts what it hands out.
fn served_stale(operation: Operation, cached: &CachedKey) {
    if let Some(statistics) = bridge::statistics() {
        statistics.served_stale(operation, cached.data_key().key_id());
    }
    journal::served_stale(cached.data_key().key_id());
}

/// Acts on what a provider said about a cached data key: an error unless it may be used, fresh or stale.
fn settle(cached: &CachedKey, asked: Instant, answer: Result<OpeningGrant, Error>) -> Result<(), Error> {
    // A session that was idle since may take up the answer much later than it came.
    let failed = Instant::now().min(asked + settings::kms().aws.timeout);
    match answer {
        Ok(OpeningGrant { consent, .. }) => {
            cached.confirmed(consent.given_at(asked));
            if consent.is_stale {
                cached.out_of_reach(failed);
            }
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

/// Drops the data keys of a key that its provider refuses: at once, whatever the data key that was asked for; if access to it
/// is denied, those of the encryption context.
fn heed_refusal(error: &KmsError, context: &EncryptionContext) {
    let is_refused = |data_key: &DataKey| {
        is_same_key(data_key.key_id(), &error.key_id) && (!error.is_denial() || data_key.context() == context)
    };
    if error.is_refusal_of_key() && forget(is_refused) > 0 {
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

/// Looks something up in the session, with all that it has been told up to now heeded.
fn look_up<T>(find: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<T, Error> {
    // Mostly there are no refreshes, and then the session is borrowed once for a value.
    let found = with_session(|session| match session.refreshes.is_empty() {
        true => Ok(session.find_with(find)),
        false => Err(find),
    });
    found.unwrap_or_else(|find| {
        settle_refreshes();
        with_session(|session| session.find_with(find))
    })
}

/// Acts on the background refreshes that have been answered. Whoever needs a data key that was refused asks again, and is
/// told.
fn settle_refreshes() {
    let mut refreshes = with_session(|session| session.refreshes.take_all());
    let answered: Vec<_> = std::iter::from_fn(|| refreshes.take_answered()).collect();
    with_session(|session| session.refreshes.put_back(refreshes));
    for answered in answered {
        // It serves on until its time is up, if it still may.
        let _ = heed(answered);
    }
}

fn start_refresh(cached: &Rc<CachedKey>) {
    if with_session(|session| session.refreshes.has_room())
        && let Some(refresh) = Refresh::start(cached)
    {
        with_session(|session| session.refreshes.add(refresh));
    }
}

/// Acts on what a refresh came to: an error unless the data key may be used.
fn heed(Answered { cached, asked, answer }: Answered) -> Result<(), Error> {
    if let Err(Error::Kms(error)) = &answer {
        heed_refusal(error, cached.data_key().context());
    }
    journal::write_events();
    settle(&cached, asked, answer)
}

/// The reply to a request for the plaintext of a data key.
pub fn opening_grant(reply: Result<Reply, Error>) -> Result<OpeningGrant, Error> {
    match reply? {
        Reply::Opening(grant) => Ok(grant),
        Reply::Sealing(_) | Reply::Rewrapped(_) => unreachable!("the reply is to this request"),
    }
}

/// The request for the plaintext of a data key that is in use: what another session has refreshed lately will do, and what
/// is stale will not.
pub fn refresh_request(wrapped: WrappedKey, context: EncryptionContext, commitment: Commitment) -> Request {
    let terms = Terms { fresh_for: settings::limits().ttl / 2, stale_for: Duration::ZERO, calls: Calls::Needed };
    Request::OpeningKey { wrapped, context, commitment: Some(commitment), terms }
}

/// The request for the plaintext of a data key.
fn unwrap_request(
    wrapped: WrappedKey,
    context: EncryptionContext,
    commitment: Commitment,
    fresh_for: Duration,
) -> Request {
    Request::OpeningKey { wrapped, context, commitment: Some(commitment), terms: terms(&settings::limits(), fresh_for) }
}

/// Asks the broker or a provider, and waits for the answer.
///
/// # Errors
/// Why it was not done.
pub fn ask(request: Request) -> Result<Reply, Error> {
    finish(start(request)?)
}

/// Waits for a request.
///
/// # Errors
/// As [`ask`].
pub fn finish(mut pending: kms::Pending) -> Result<Reply, Error> {
    let reply = kms::wait(&mut pending);
    heed_reply(pending.context(), reply)
}

/// Starts a request that the statement waits for.
///
/// # Errors
/// [`Error::TooManyKmsCalls`], [`Error::Bridge`].
pub fn start(request: Request) -> Result<kms::Pending, Error> {
    // A request for a data key says by itself which calls it may take: the broker may have the answer.
    if request.terms().is_none() && statement::kms_calls_allowed() == Calls::None {
        return Err(statement::too_many_kms_calls());
    }
    statement::count_kms_call();
    if let Some(problem) = shared::problem() {
        journal::shared_problem(&problem);
    }
    kms::start(request)
}

fn heed_reply(context: &EncryptionContext, reply: Result<Reply, Error>) -> Result<Reply, Error> {
    journal::write_events();
    match &reply {
        Ok(reply) if !reply.took_call() => statement::uncount_kms_call(),
        Ok(_) => {}
        Err(Error::Kms(KmsError { kind: KmsErrorKind::NoCallLeft, .. })) => {
            statement::uncount_kms_call();
            return Err(statement::too_many_kms_calls());
        }
        Err(Error::Kms(error)) => {
            if error.breaker_was_open {
                statement::uncount_kms_call();
            }
            heed_refusal(error, context);
        }
        Err(_) => {}
    }
    reply
}

/// Has all processes of the server forget all data keys, and says how many this session had.
///
/// # Errors
/// [`Error::Shared`].
pub fn flush_everywhere() -> Result<usize, Error> {
    // Its own at any rate.
    let flushed = flush();
    shared::flush().map_err(Error::Shared)?;
    Ok(flushed)
}

/// Forgets the session's data keys, and says how many there were.
pub fn flush() -> usize {
    with_session(Session::flush)
}

/// Wipes what the backend kept secret.
#[pg_guard]
unsafe extern "C-unwind" fn wipe_at_exit(_code: i32, _argument: pg_sys::Datum) {
    drop(SESSION.take());
}
