//! This backend's data keys, and when to ask KMS. The cache is borrowed to look up and to add, never while KMS is asked.
//!
//! - `sealing`: the data key that seals a value
//! - `opening`: the data key that opens a value
//! - `consent`: whether the provider of a cached data key consents to its use
//! - `asking`: requests about data keys
//! - `index_keys`: the versions of index keys, and the data keys that they are
//! - `named_keys`: keys that are named and granted in SQL, and who may use them
//! - `refresh`: data keys that are refreshed in the background
//! - `rewrap`: data keys that are rewrapped, once each
//! - `prefetch`: many requests to KMS at a time
//! - `release`: whether library and SQL objects are of one release
//! - `statement`: how many KMS calls the current statement has made

mod asking;
mod consent;
pub mod index_keys;
pub mod named_keys;
mod opening;
pub mod prefetch;
mod refresh;
mod release;
pub mod rewrap;
mod sealing;
pub mod statement;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use envelope_core::allowed_keys::AllowedKeys;
use envelope_core::cache::{CachedKey, Consent, OpeningKeys, SealingKeys};
use envelope_core::cipher::message_keys::MessageKeys;
use envelope_core::cipher::random::Nonces;
use envelope_core::format::{Head, NONCE_BYTES};
use envelope_core::keys::KeyId;
use envelope_core::keys::stack::wipe_stack;
use envelope_core::request::ConsentAge;
use envelope_core::value::DataKey;

pub use self::asking::{finish, opening_grant, refresh_request, start};
use self::consent::settle_refreshes;
pub use self::opening::{Unwrapping, one_message, opening_key};
pub use self::sealing::{Sealing, rotate_dek, sealing};
use crate::ask::shared::Seen;
use crate::ask::{journal, shared};
use crate::error::Error;
use crate::pg::backend::{process_id, statement_start};
use crate::pg::exit::at_exit;
use crate::pg::settings;
use crate::session::refresh::Refreshes;

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
    message_keys: Rc<MessageKeys>,
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
        // Wipes what the backend kept secret.
        at_exit(|| drop(SESSION.take()));
        Self {
            process,
            sealing: SealingKeys::new(),
            opening: OpeningKeys::new(),
            refreshes: Refreshes::default(),
            nonces: Nonces::new(),
            message_keys: Rc::default(),
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

    /// Random bytes for one nonce.
    fn next_random(&mut self) -> Result<[u8; NONCE_BYTES], Error> {
        self.nonces.next_nonce(statement_start()).map_err(|_| Error::NoRandomness)
    }

    fn flush(&mut self) -> usize {
        self.refreshes.cancel();
        self.sealing.clear();
        let flushed = self.opening.clear();
        wipe_stack();
        flushed
    }

    /// Checks a key against the list that is in force now.
    fn check_allowed(&mut self, key_id: &str) -> Result<(), Error> {
        let generation = settings::allowed_keys_generation();
        if self.allowed_generation != generation {
            self.allowed = settings::allowed_keys();
            self.allowed_generation = generation;
        }
        if self.allowed.allows(key_id) {
            return Ok(());
        }
        // What is no key id may be a plaintext, and is not repeated.
        Err(Error::KeyNotAllowed(KeyId::parse(key_id)?.to_string()))
    }
}

fn with_session<T>(use_session: impl FnOnce(&mut Session) -> T) -> T {
    SESSION.with_borrow_mut(|session| {
        let process = process_id();
        match session {
            Some(session) if session.process == process => use_session(session),
            _ => use_session(session.insert(Session::start(process))),
        }
    })
}

fn message_keys() -> Rc<MessageKeys> {
    with_session(|session| Rc::clone(&session.message_keys))
}

/// Checks a key against the list that is in force now.
///
/// # Errors
/// [`Error::KeyNotAllowed`].
pub fn check_allowed(key_id: &str) -> Result<(), Error> {
    with_session(|session| session.check_allowed(key_id))
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

/// Keeps a data key that was just handed out, if its key is allowed. One that was asked for before a flush is good for the
/// value at hand only.
fn keep(data_key: DataKey, consent: ConsentAge, asked: Asked) -> Result<Rc<CachedKey>, Error> {
    let limits = settings::limits();
    let cached = with_session(|session| {
        session.check_allowed(data_key.key_id())?;
        let now = Instant::now();
        let spread = session.next_random()?[0];
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
